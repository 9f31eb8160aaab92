//! CSV: the first line names the columns. Spreadsheets write it with commas, semicolons or tabs.

use std::io::{BufRead, Cursor, Read};

use csv::{ByteRecord, Reader, ReaderBuilder, Terminator, Trim};
use serde_json::{Map, Value};

use super::error::SendError;
use super::line::{BYTE_ORDER_MARK, Line, is_utf16};
use crate::job::request::LARGEST_BODY;

/// The columns that are read. The last two must not be there: each of their lines is refused, as a job with them is.
const FIELDS: [&str; 6] = ["Phone", "MultiChannelTempId", "TypeId", "TimeAlive", "ApiKey", "SecretKey"];

/// The most bytes of a row. In a longer one, a quotation mark is not closed.
const LONGEST_ROW: usize = 1024 * 1024;

const QUANTITY: &str = "Phone was changed by a spreadsheet: it has nine digits without the leading zero, a decimal point \
    or an exponent. Format the column as text, and write the numbers again";

/// Reads no more than is allowed, so that a row cannot take all memory.
struct Bounded<R> {
    input: R,
    left: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::Error::other(format!(
                "a row is longer than {LONGEST_ROW} bytes: a quotation mark is not closed"
            )));
        }
        let most = buffer.len().min(self.left);
        let read = self.input.read(&mut buffer[..most])?;
        self.left -= read;
        Ok(read)
    }
}

/// The rows of a file, as bodies of jobs.
pub(super) struct Csv {
    rows: Reader<Bounded<Box<dyn Read + Send>>>,
    name: String,
    /// The field of each column that is read.
    fields: Vec<Option<&'static str>>,
}

impl Csv {
    /// Reads the names of the columns.
    pub(super) fn open(mut input: impl BufRead + Send + 'static, name: String) -> Result<Self, SendError> {
        let first = first_line(&mut input).map_err(|error| SendError::Input(name.clone(), error))?;
        let refused = |why: String| SendError::Csv(name.clone(), why);
        if is_utf16(&first) || first.contains(&0) {
            return Err(SendError::Encoding(name));
        }
        if first.trim_ascii_end().contains(&b'\r') {
            return Err(refused("its lines end in CR only; save it as CSV UTF-8".into()));
        }
        let delimiter = delimiter(&first);
        let input: Box<dyn Read + Send> = Box::new(Cursor::new(first).chain(input));
        let input = Bounded { input, left: LONGEST_ROW };
        let mut reader = ReaderBuilder::new();
        // The default terminator counts lines that end in CR LF wrongly. Trimming takes the CR away.
        reader.terminator(Terminator::Any(b'\n')).delimiter(delimiter).trim(Trim::All).flexible(true);
        let mut rows = reader.from_reader(input);
        let columns = rows.byte_headers().map_err(|error| refused(error.to_string()))?;
        let fields = fields(columns).map_err(refused)?;
        Ok(Self { rows, name, fields })
    }

    fn body(&self, row: &ByteRecord, lines: u64) -> Result<Vec<u8>, String> {
        // The other lines may be rows of other people.
        if lines > 1 {
            return Err(format!(
                "it is one row with {lines} lines: a quotation mark is not closed, or a cell has several lines"
            ));
        }
        let mut job = Map::new();
        for (field, cell) in self.fields.iter().zip(row) {
            let (Some(field), false) = (field, cell.is_empty()) else { continue };
            let cell =
                std::str::from_utf8(cell).map_err(|_| format!("{field} is not UTF-8: save the file as UTF-8"))?;
            if *field == "Phone" && is_quantity(cell) {
                return Err(QUANTITY.into());
            }
            job.insert((*field).to_owned(), cell.into());
        }
        Ok(Value::Object(job).to_string().into_bytes())
    }
}

impl Iterator for Csv {
    type Item = Result<Line, SendError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut row = ByteRecord::new();
        loop {
            self.rows.get_mut().left = LONGEST_ROW;
            match self.rows.read_byte_record(&mut row) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(SendError::Csv(self.name.clone(), error.to_string()))),
            }
            if row.iter().all(<[u8]>::is_empty) {
                continue;
            }
            let number = row.position().map_or(0, csv::Position::line);
            let lines = self.rows.position().line().saturating_sub(number).max(1);
            return Some(Ok(Line { number, body: self.body(&row, lines) }));
        }
    }
}

/// The line that names the columns. Excel may write a line before it that names the delimiter.
fn first_line(input: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    loop {
        let mut line = Vec::new();
        input.by_ref().take(LARGEST_BODY as u64).read_until(b'\n', &mut line)?;
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line);
        if !line.starts_with(b"sep=") {
            return Ok(line.to_vec());
        }
    }
}

/// The sign that makes a column of `Phone`, else the one that stands most often in the first line.
fn delimiter(first: &[u8]) -> u8 {
    let often = |sign: u8| first.iter().filter(|byte| **byte == sign).count();
    let is_phone = |cell: &[u8]| {
        cell.trim_ascii().eq_ignore_ascii_case(b"Phone") || cell.trim_ascii().eq_ignore_ascii_case(b"\"Phone\"")
    };
    let makes_a_phone = |sign: u8| first.split(|byte| *byte == sign).any(is_phone);
    // The last of several that do as well is taken.
    [b'\t', b';', b','].into_iter().max_by_key(|sign| (makes_a_phone(*sign), often(*sign))).unwrap_or(b',')
}

fn fields(columns: &ByteRecord) -> Result<Vec<Option<&'static str>>, String> {
    let field = |column: &[u8]| FIELDS.into_iter().find(|field| field.as_bytes().eq_ignore_ascii_case(column));
    let fields: Vec<_> = columns.iter().map(field).collect();
    for name in FIELDS {
        let times = fields.iter().filter(|field| **field == Some(name)).count();
        if times > 1 {
            return Err(format!("two columns are named {name}"));
        }
        if times == 0 && name == "Phone" {
            return Err("the first line must name the columns, and one of them Phone".into());
        }
    }
    Ok(fields)
}

/// Whether a number was taken for a quantity, and written as one: `901888484`, `84901888484.0`, `8.49E+10`.
fn is_quantity(phone: &str) -> bool {
    let has_lost_its_zero = phone.len() == 9
        && phone.bytes().all(|byte| byte.is_ascii_digit())
        && phone.starts_with(['3', '5', '7', '8', '9']);
    let has_exponent = phone.contains("E+") || phone.contains("e+");
    has_lost_its_zero || has_exponent || phone.ends_with(".0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of its line, and its body or why it has none.
    type Row = (u64, Result<String, String>);

    fn read(text: &[u8]) -> Result<Vec<Row>, String> {
        let csv = Csv::open(Cursor::new(text.to_vec()), "a file".into()).map_err(|error| error.to_string())?;
        csv.map(|line| {
            let line = line.map_err(|error| error.to_string())?;
            Ok((line.number, line.body.map(|body| String::from_utf8_lossy(&body).into_owned())))
        })
        .collect()
    }

    const JOB: &str = r#"{"MultiChannelTempId":"12","Phone":"0901888484"}"#;

    #[test]
    fn a_row_is_a_job_however_a_spreadsheet_writes_it() {
        for text in [
            "Phone,MultiChannelTempId\n0901888484,12\n",
            "Phone;MultiChannelTempId\r\n0901888484;12\r\n",
            "Phone\tMultiChannelTempId\n0901888484\t12",
            "\u{feff}phone,multichanneltempid\n 0901888484 , 12 \n",
            "\"Phone\",\"MultiChannelTempId\",\"Name\"\n\"0901888484\",\"12\",\"Nguyễn, Văn \"\"A\"\"\"\n",
            "Name;MultiChannelTempId;Phone;TypeId\nx;12;0901888484;\n",
            "MultiChannelTempId;Name, First; Last, Middle;Phone;Town, Country\n12;;;0901888484;\n",
        ] {
            assert_eq!(read(text.as_bytes()), Ok(vec![(2, Ok(JOB.to_owned()))]), "{text:?}");
        }
        // Excel's line before the first.
        assert_eq!(read(b"sep=;\r\nPhone;MultiChannelTempId\r\n0901888484;12").map(|rows| rows.len()), Ok(1));
        // A name in another encoding is in nobody's way.
        let rows = read(b"Phone,MultiChannelTempId,Name\n0901888484,12,\xd0\xff\n");
        assert_eq!(rows, Ok(vec![(2, Ok(JOB.to_owned()))]));
    }

    #[test]
    fn rows_keep_the_numbers_of_their_lines() {
        let rows = read(b"Phone,Note\n0901000001,\"two\nlines\"\n\n,\n0901000002\n").unwrap_or_default();
        let rows: Vec<(u64, bool)> = rows.iter().map(|(number, body)| (*number, body.is_ok())).collect();
        assert_eq!(rows, [(2, false), (6, true)]);
    }

    #[test]
    fn a_row_that_is_no_job_is_told_why() {
        for (text, named) in [
            (&b"Phone\n901888484\n"[..], "spreadsheet"),
            (b"Phone\n\xff\xfe01\n", "not UTF-8"),
            (b"Phone,Name\n0901000002,\"Binh\n0901000003,\"Cuc\"\n", "one row with 2 lines"),
        ] {
            let rows = read(text).unwrap_or_default();
            let [(_, Err(why))] = rows.as_slice() else { panic!("{named}: {rows:?}") };
            assert!(why.contains(named), "{why}");
        }
        // No number of Vietnam begins so, and no longer number has lost anything.
        for phone in ["6681234567", "12345678", "0901.888.484", "+84 901 888 484"] {
            assert!(!is_quantity(phone), "{phone}");
        }
        for phone in ["812345678", "84901888484.0", "901888484.0", "8.49E+10", "8,49e+10"] {
            assert!(is_quantity(phone), "{phone}");
        }
    }

    #[test]
    fn without_usable_columns_nothing_is_read() {
        for (text, named) in [
            ("0901888484,12\n", "the first line must name the columns"),
            ("", "the first line must name the columns"),
            ("Phone,phone\n1,2\n", "two columns are named Phone"),
        ] {
            assert!(read(text.as_bytes()).is_err_and(|why| why.contains(named)), "{text:?}");
        }
        for utf_16 in [&b"\xff\xfeP\0"[..], b"P\0h\0"] {
            assert!(read(utf_16).is_err_and(|why| why.contains("UTF-16")));
        }
        assert!(read(b"Phone,Name\r0901000011,a\r").is_err_and(|why| why.contains("CR only")));
        let endless = [&b"Phone\n\""[..], &vec![b'x'; 2 * LONGEST_ROW]].concat();
        assert!(read(&endless).is_err_and(|why| why.contains("quotation mark")));
    }
}
