//! What a person is told of a number: the rules that it is under, whether it is served or not.

use tokio::time::Instant;

use super::{HeldBack, Limits, Place, Prefix, Verdict};
use crate::job::phone::Phone;
use crate::job::request::{Kind, OtpRequest};

impl Limits {
    /// Why the number is not served at all, if it is not.
    pub fn not_served(&self, phone: &Phone) -> Option<HeldBack> {
        self.denied(&to(phone))
    }

    /// The place that a job for this number would take if the number was served. `None` if nothing is counted.
    pub fn place_of(&self, phone: &Phone) -> Option<Place> {
        let serving_all = Self { allow: Vec::new(), deny: Vec::new(), ..self.clone() };
        serving_all.place("", &to(phone), Instant::now())
    }

    /// Each rule of a place, for people: whom it is about, how many OTPs it allows, and its sentence.
    pub fn told(&self, place: &Place) -> Vec<Told> {
        let of_number = self.number.iter().map(|rule| ("number".to_owned(), rule.most));
        let of_groups = self.groups_of(place).flat_map(|(_, group)| {
            let about = group.prefix.as_ref().map_or_else(|| "total".to_owned(), about);
            group.rules.iter().map(move |rule| (about.clone(), rule.most))
        });
        let told = |(rule, (about, most))| Told { about, most, rule: self.sentence(place, rule) };
        of_number.chain(of_groups).enumerate().map(told).collect()
    }

    fn sentence(&self, place: &Place, rule: usize) -> String {
        let verdict = Verdict { rule, free_in: std::time::Duration::ZERO, is_in_flight: false };
        self.held_back(place, verdict).map(|held_back| held_back.reason).unwrap_or_default()
    }
}

/// A rule, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whom it is about: `number`, `prefix 84`, `total`.
    pub about: String,
    /// The most OTPs that it allows.
    pub most: u32,
    /// Its sentence. It begins with the setting's name.
    pub rule: String,
}

fn about(prefix: &Prefix) -> String {
    format!("prefix {prefix}")
}

/// A job for this number. Limits look at nothing else of it.
fn to(phone: &Phone) -> OtpRequest {
    OtpRequest {
        phone: phone.clone(),
        template_id: String::new(),
        template_is_default: false,
        kind: Kind::Send,
        time_alive: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reader::Reader;

    #[test]
    fn the_rules_of_a_number_are_told_in_their_order_whether_it_is_served_or_not() {
        let source = |setting: &crate::settings::table::Setting| {
            let value = match setting.env {
                "OTP_PHONE_LIMIT" => "3/10m",
                "OTP_PREFIX_LIMIT" => "84:5/1m,8490:4/1m",
                "OTP_TOTAL_LIMIT" => "9/1h",
                "OTP_PREFIX_DENY" => "8491",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let limits = Limits::from_reader(&mut Reader::new(&source));
        let denied = Phone::parse("0911888484").expect("a number");
        assert!(limits.not_served(&denied).is_some_and(|held| held.reason.starts_with("OTP_PREFIX_DENY")));
        let told = limits.told(&limits.place_of(&denied).expect("a place"));
        let about: Vec<_> = told.iter().map(|told| (told.about.as_str(), told.most)).collect();
        assert_eq!(about, [("number", 3), ("prefix 84", 5), ("total", 9)]);
        assert_eq!(told[0].rule, "OTP_PHONE_LIMIT: at most 3 to a number in 10m");
        assert!(Limits::default().place_of(&denied).is_none());
    }
}
