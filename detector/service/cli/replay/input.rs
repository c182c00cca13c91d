//! Lines of an audit log: plain, gzip or zstd, told apart by their first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;

/// Longest line read, in bytes; API servers without truncation write events of many megabytes.
const MAX_LINE: u64 = 64 << 20;

/// A log read line by line; holds one line at a time.
pub struct Lines {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Opens `file`, or standard input for `-`.
    ///
    /// # Errors
    /// When it cannot be opened or its first bytes cannot be read.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        let raw: Box<dyn Read> = if file == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(file).with_context(|| format!("cannot open `{}`", file.display()))?)
        };
        Self::new(raw).with_context(|| format!("cannot read `{}`", file.display()))
    }

    fn new(raw: Box<dyn Read>) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(1 << 16, raw);
        let start = raw.fill_buf()?;
        let reader: Box<dyn BufRead> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw)))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Box::new(BufReader::new(zstd::stream::Decoder::with_buffer(raw)?))
        } else {
            Box::new(raw)
        };
        Ok(Self { reader, line: Vec::new(), number: 0 })
    }

    /// The next line without its end, `None` at the end of the log.
    ///
    /// # Errors
    /// When it cannot be read, is compressed wrongly, or is longer than 64 MiB.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 == MAX_LINE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("line {} is longer than 64 MiB", self.number),
            ));
        }
        Ok(Some(&self.line))
    }

    /// The number of the last line, from 1.
    pub const fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"{\"a\":1}\n\n{\"b\":2}";

    fn read(bytes: Vec<u8>) -> Vec<String> {
        let mut lines = Lines::new(Box::new(io::Cursor::new(bytes))).unwrap();
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            all.push(String::from_utf8(line.to_vec()).unwrap());
        }
        assert_eq!(lines.number(), all.len() as u64);
        all
    }

    #[test]
    fn the_same_lines_however_compressed() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(TEXT).unwrap();
        let expected = ["{\"a\":1}", "", "{\"b\":2}"];
        assert_eq!(read(TEXT.to_vec()), expected);
        assert_eq!(read(gzip.finish().unwrap()), expected);
        assert_eq!(read(zstd::encode_all(TEXT, 1).unwrap()), expected);
        assert!(read(Vec::new()).is_empty());
    }
}
