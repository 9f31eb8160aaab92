//! CSV: the first line names the columns. Spreadsheets write it with commas, semicolons or tabs.

use std::io::{BufRead, Cursor, Read};

use csv::{ByteRecord, Reader, ReaderBuilder, Terminator, Trim};
use serde_json::{Map, Value};

use super::error::SendError;
use super::line::{BYTE_ORDER_MARK, Line, is_utf16};
use crate::job::request::LARGEST_BODY;

/// The columns that are read. The last two must not be there: each of their lines is refused, as a job with them is.
const FIELDS: [&str; 6] = ["Phone", "MultiChannelTempId", "TypeId", "TimeAlive", "ApiKey", "SecretKey"];

/// The most lines that one row may have. In a row with more, a quotation mark is not closed, and the rows behind it
/// would count as its text.
const MOST_LINES: u64 = 20;

/// The rows of a file, as bodies of jobs.
pub(super) struct Csv {
    rows: Reader<Box<dyn Read + Send>>,
    name: String,
    /// The field of each column that is read.
    fields: Vec<Option<&'static str>>,
}

impl Csv {
    /// Reads the names of the columns.
    pub(super) fn open(mut input: impl BufRead + Send + 'static, name: String) -> Result<Self, SendError> {
        let mut first = Vec::new();
        let most = LARGEST_BODY as u64;
        let failed = |error| SendError::Input(name.clone(), error);
        input.by_ref().take(most).read_until(b'\n', &mut first).map_err(failed)?;
        if is_utf16(&first) {
            return Err(SendError::Encoding(name));
        }
        let first = first.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&first).to_vec();
        let delimiter = delimiter(&first);
        let input: Box<dyn Read + Send> = Box::new(Cursor::new(first).chain(input));
        let mut reader = ReaderBuilder::new();
        // The default terminator counts lines that end in CR LF wrongly. Trimming takes the CR away.
        reader.terminator(Terminator::Any(b'\n')).delimiter(delimiter).trim(Trim::All).flexible(true);
        let mut rows = reader.from_reader(input);
        let columns = rows.byte_headers().map_err(|error| SendError::Csv(name.clone(), error.to_string()))?;
        let fields = fields(columns).map_err(|why| SendError::Csv(name.clone(), why))?;
        Ok(Self { rows, name, fields })
    }

    fn body(&self, row: &ByteRecord, lines: u64) -> Result<Vec<u8>, String> {
        if lines > MOST_LINES || row.as_slice().len() > LARGEST_BODY {
            return Err(format!("{lines} lines are one row: a quotation mark is not closed"));
        }
        let mut job = Map::new();
        for (field, cell) in self.fields.iter().zip(row) {
            let (Some(field), false) = (field, cell.is_empty()) else { continue };
            let cell =
                std::str::from_utf8(cell).map_err(|_| format!("{field} is not UTF-8: save the file as UTF-8"))?;
            if *field == "Phone" && has_lost_its_zero(cell) {
                return Err(
                    "Phone has nine digits and no leading zero: a spreadsheet has removed it. Format the column as \
                    text, and write the numbers again"
                        .into(),
                );
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
            match self.rows.read_byte_record(&mut row) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(SendError::Csv(self.name.clone(), error.to_string()))),
            }
            if row.iter().all(<[u8]>::is_empty) {
                continue;
            }
            let number = row.position().map_or(0, csv::Position::line);
            let lines = self.rows.position().line().saturating_sub(number);
            return Some(Ok(Line { number, body: self.body(&row, lines) }));
        }
    }
}

/// The sign that stands most often in the first line.
fn delimiter(first: &[u8]) -> u8 {
    let often = |sign: u8| first.iter().filter(|byte| **byte == sign).count();
    // The last of several that stand equally often is taken.
    [b'\t', b';', b','].into_iter().max_by_key(|sign| often(*sign)).unwrap_or(b',')
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

/// Whether a number of Vietnam was taken for a quantity: it has nine digits without the leading zero.
fn has_lost_its_zero(phone: &str) -> bool {
    phone.len() == 9 && phone.bytes().all(|byte| byte.is_ascii_digit()) && phone.starts_with(['3', '5', '7', '8', '9'])
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
        ] {
            assert_eq!(read(text.as_bytes()), Ok(vec![(2, Ok(JOB.to_owned()))]), "{text:?}");
        }
        // A name in another encoding is in nobody's way.
        let rows = read(b"Phone,MultiChannelTempId,Name\n0901888484,12,\xd0\xff\n");
        assert_eq!(rows, Ok(vec![(2, Ok(JOB.to_owned()))]));
    }

    #[test]
    fn rows_keep_the_numbers_of_their_lines() {
        let rows = read(b"Phone,Note\n0901000001,\"two\nlines\"\n\n,\n0901000002\n").unwrap_or_default();
        let numbers: Vec<u64> = rows.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 6]);
    }

    #[test]
    fn a_row_that_is_no_job_is_told_why() {
        let open = format!("Phone,Note\n0901000001,\"open\n{}", "0901000002,x\n".repeat(100));
        for (text, named) in [
            (&b"Phone\n901888484\n"[..], "no leading zero"),
            (b"Phone\n\xff\xfe01\n", "not UTF-8"),
            (open.as_bytes(), "quotation mark"),
        ] {
            let rows = read(text).unwrap_or_default();
            let [(_, Err(why))] = rows.as_slice() else { panic!("{named}: {rows:?}") };
            assert!(why.contains(named), "{why}");
        }
        // No number of Vietnam begins so, and no longer number has lost anything.
        for phone in ["812345678", "6681234567", "12345678"] {
            assert_eq!(has_lost_its_zero(phone), phone == "812345678", "{phone}");
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
        assert!(read(b"\xff\xfeP\0").is_err_and(|why| why.contains("UTF-16")));
    }
}
