//! Lines on their way out. A thread of its own writes them, so that a slow terminal or a full pipe holds up no job.
//!
//! Waking that thread for each line would cost more than the line: it writes what has gathered in a few
//! milliseconds at once.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How long lines gather.
const GATHER: Duration = Duration::from_millis(5);

/// How long the last lines may take at the end of the process. Whoever reads them may read no more.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Takes lines. All copies share the same state.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is a first line, and when it is to end.
    wake: Condvar,
    /// Told when the thread has ended.
    ended: Condvar,
    most_waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    is_closing: bool,
    has_ended: bool,
}

/// Writes the last lines when it is dropped.
#[derive(Debug)]
pub struct LastLines(Lines);

impl Lines {
    /// Lines for `out`. At most so many bytes wait; what comes then is dropped, and counted.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn to(out: impl Write + Send + 'static, most_waiting: usize) -> io::Result<(Self, LastLines)> {
        let (state, wake, ended) = (Mutex::default(), Condvar::new(), Condvar::new());
        let lines = Self(Arc::new(Shared { state, wake, ended, most_waiting }));
        let shared = Arc::clone(&lines.0);
        thread::Builder::new().name("log".into()).spawn(move || shared.write_all_to(out))?;
        Ok((lines.clone(), LastLines(lines)))
    }

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.0.state().dropped
    }
}

impl Shared {
    fn write_all_to(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        while self.gather(&mut lines) {
            // Nobody can be told that the log cannot be written.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
        }
        self.state().has_ended = true;
        self.ended.notify_all();
    }

    /// Takes the lines that have come, once there are any. False at the end.
    fn gather(&self, lines: &mut Vec<u8>) -> bool {
        let is_idle = |state: &mut State| state.waiting.is_empty() && !state.is_closing;
        let state = self.wake.wait_while(self.state(), is_idle).unwrap_or_else(PoisonError::into_inner);
        let is_open = |state: &mut State| !state.is_closing;
        let gathered = self.wake.wait_timeout_while(state, GATHER, is_open);
        let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut state.waiting, lines);
        !lines.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Lines {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if state.waiting.len() + line.len() > self.0.most_waiting {
            state.dropped += 1;
        } else {
            let is_first = state.waiting.is_empty();
            state.waiting.extend_from_slice(line);
            drop(state);
            if is_first {
                self.0.wake.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let mut state = shared.state();
        state.is_closing = true;
        shared.wake.notify_one();
        let _ = shared.ended.wait_timeout_while(state, LAST_LINES, |state| !state.has_ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what is written. Nothing is written while somebody else has the lock.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_written_in_its_order_and_the_last_ones_at_the_end() {
        let page = Page::default();
        let (mut lines, last) = Lines::to(page.clone(), 1 << 20).unwrap();
        for n in 0..1000 {
            writeln!(lines, "line {n}").unwrap();
        }
        drop(last);
        let written = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let expected: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        assert_eq!(written, expected);
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn lines_that_nobody_reads_are_dropped_and_counted_and_the_end_does_not_wait_for_them_for_long() {
        let page = Page::default();
        let stuck = page.0.lock().unwrap();
        let (mut lines, last) = Lines::to(page.clone(), 100).unwrap();
        let line = [b'a'; 40];
        while lines.dropped() == 0 {
            assert_eq!(lines.write(&line).unwrap(), line.len());
        }
        // Some are with the thread, and two wait.
        assert_eq!(lines.0.state().waiting.len(), 80);
        drop(last);
        drop(stuck);
    }
}
