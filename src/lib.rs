//! `esms-otp-worker`: turns a queue of one-time-password jobs into calls of
//! eSMS.vn's `SendMessageAutoGenCode_V5`.

pub mod sandbox;
