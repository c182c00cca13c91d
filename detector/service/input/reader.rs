//! A stream of audit events of any shape, read in constant memory.
//!
//! JSON lines cost a search for the newline. Lists and arrays are taken apart while they are read:
//! only one event is in memory at a time. Damage costs the damaged item; reading goes on behind it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use lapwing_engine::batch::RejectReason;
use lapwing_engine::event::BODIES_DROPPED;
use lapwing_engine::{carry, redact};
use memchr::{memchr, memchr_iter, memmem};

use super::envelope::{self, Content, Counts, Opened};
use super::scan::{EVENT_STARTS, Scanner, Step, starts_like_event};
use super::{EXCERPT, Limits};

/// Read from the source at once.
const CHUNK: usize = 256 << 10;
/// Lists within lists; deeper ones are items like any other.
const MAX_NESTED: usize = 4;
/// Wrappers within wrappers; what is wrapped deeper is an item like any other.
const MAX_WRAPPED: u8 = 4;
/// Bytes that compressed records may unpack to: of one value of a file, of a whole body.
const UNPACKED: usize = 64 << 20;

/// Something in the stream that is no item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, byte {byte}: {detail}")]
pub struct Unreadable {
    pub reason: RejectReason,
    pub detail: String,
    /// Redacted, at most [`EXCERPT`] bytes.
    pub excerpt: String,
    /// Of the uncompressed stream, from 1.
    pub line: u64,
    /// Of the uncompressed stream, from 0.
    pub byte: u64,
}

/// How far a file is read, for a progress bar; may be read from another thread.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    read: Arc<AtomicU64>,
    /// Size of the file, where it has one.
    pub total: Option<u64>,
}

impl Progress {
    /// Bytes read so far, as they are on disk (compressed).
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Where the reader is.
enum Frame {
    /// In an array.
    Array,
    /// In the `items` of an object, which goes on behind the list.
    Items(Scanner),
}

/// What the next item is.
enum Found {
    /// In the buffer.
    Text(Range<usize>),
    /// In `scratch`.
    Rebuilt,
    Unreadable(Unreadable),
}

/// The events of a stream, one after another. See [`Events::next`].
pub struct Events<R> {
    input: R,
    limits: Limits,
    buf: Vec<u8>,
    /// `buf[pos..end]` is read and not consumed.
    pos: usize,
    end: usize,
    eof: bool,
    failed: Option<io::Error>,
    frames: Vec<Frame>,
    scratch: String,
    byte: u64,
    line: u64,
    item_line: u64,
    /// Line the outermost open list began on: as long as it is this one, a newline cannot be within an item.
    list_line: u64,
    /// The list has an item already, and a comma was read since.
    after_item: bool,
    comma: bool,
    /// A line break cut an item of a list: on the line behind this one its text may go on, and the list behind that.
    list_cut: Option<u64>,
    progress: Progress,
    /// What was in the last wrapper and is not handed out yet.
    unwrapped: VecDeque<Result<String, Unreadable>>,
    /// Wrappers this stream was found in.
    depth: u8,
    /// Bytes that may still be unpacked, and whether each value has as many again.
    room: usize,
    room_each: bool,
    counts: Counts,
}

impl Events<Box<dyn Read + Send>> {
    /// Opens a file, or standard input for `-`; gzip and zstd are recognised by their first bytes.
    pub fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let (raw, total): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path)?;
            let meta = file.metadata()?;
            if meta.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory, expected a file"));
            }
            (Box::new(file), meta.is_file().then_some(meta.len()))
        };
        let progress = Progress { read: Arc::default(), total };
        let mut raw = Counted { inner: raw, read: Arc::clone(&progress.read) };
        let mut magic = Vec::with_capacity(4);
        raw.by_ref().take(4).read_to_end(&mut magic)?;
        let start = magic.clone();
        let raw = io::Cursor::new(magic).chain(raw);
        let input: Box<dyn Read + Send> = match start.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(raw)?),
            _ => Box::new(raw),
        };
        Ok(Self { progress, room_each: true, ..Self::new(input, limits) })
    }
}

impl<R: Read> Events<R> {
    pub fn new(input: R, limits: Limits) -> Self {
        Self {
            input,
            limits,
            buf: Vec::new(),
            pos: 0,
            end: 0,
            eof: false,
            failed: None,
            frames: Vec::new(),
            scratch: String::new(),
            byte: 0,
            line: 1,
            item_line: 1,
            list_line: 0,
            after_item: false,
            comma: false,
            list_cut: None,
            progress: Progress::default(),
            unwrapped: VecDeque::new(),
            depth: 0,
            room: UNPACKED,
            room_each: false,
            counts: Counts::default(),
        }
    }

    /// What came in wrappers so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Line the last item began on, from 1, of the uncompressed stream.
    pub fn item_line(&self) -> u64 {
        self.item_line
    }

    /// The next item's text, most likely one event: `Event::parse` has the last word. `None` at the end.
    ///
    /// Invalid UTF-8 is replaced by U+FFFD, so that a bad byte in a user agent costs no event. Wrappers are taken off; a
    /// mark of what a source cannot carry is there only where a decoder of ours wrote it.
    #[expect(clippy::should_implement_trait, reason = "the item borrows from the reader")]
    pub fn next(&mut self) -> Option<Result<&str, Unreadable>> {
        match self.bare()? {
            Found::Text(range) => {
                let bytes = &self.buf[range];
                match std::str::from_utf8(bytes) {
                    Ok(text) => Some(Ok(text)),
                    Err(_) => {
                        self.scratch = String::from_utf8_lossy(bytes).into_owned();
                        Some(Ok(&self.scratch))
                    }
                }
            }
            Found::Rebuilt => Some(Ok(&self.scratch)),
            Found::Unreadable(e) => Some(Err(e)),
        }
    }

    /// The next item without its wrappers.
    fn bare(&mut self) -> Option<Found> {
        loop {
            match self.unwrapped.pop_front() {
                Some(Ok(text)) => {
                    self.scratch = text;
                    return Some(Found::Rebuilt);
                }
                Some(Err(e)) => return Some(Found::Unreadable(e)),
                None => {}
            }
            let found = self.advance()?;
            let bytes = match &found {
                Found::Text(range) => &self.buf[range.clone()],
                Found::Rebuilt => self.scratch.as_bytes(),
                Found::Unreadable(_) => return Some(found),
            };
            if BARE.iter().any(|start| bytes.starts_with(start)) {
                return Some(found);
            }
            let text = String::from_utf8_lossy(bytes);
            if self.room_each {
                self.room = UNPACKED;
            }
            let opened = if self.depth < MAX_WRAPPED { envelope::open(&text, self.room) } else { None };
            if let Some(opened) = opened {
                self.unwrap(opened);
            } else if let Some(bare) = carry::strip(&text) {
                self.unwrapped.push_back(Ok(bare));
            } else {
                return Some(found);
            }
        }
    }

    fn unwrap(&mut self, opened: Opened) {
        *self.counts.opened.entry(opened.kind).or_default() += 1;
        for content in opened.content {
            match content {
                Content::Event(text) => self.unwrapped.push_back(Ok(text)),
                Content::Skipped => *self.counts.skipped.entry(opened.kind).or_default() += 1,
                Content::Broken(detail) => {
                    let (line, byte) = (self.item_line, self.byte);
                    let bad = Unreadable { reason: RejectReason::BadBody, detail, excerpt: String::new(), line, byte };
                    self.unwrapped.push_back(Err(bad));
                }
                Content::Inner { bytes, time } => {
                    if opened.kind == envelope::Kind::Record {
                        self.room = self.room.saturating_sub(bytes.len());
                    }
                    self.read_on(&bytes, time);
                }
            }
        }
    }

    /// Reads what was wrapped as a stream of its own. An event that a log service cut off is salvaged.
    fn read_on(&mut self, bytes: &[u8], time: Option<i64>) {
        let mut inner = Events { depth: self.depth + 1, room: self.room, ..Events::new(bytes, self.limits) };
        let before = self.unwrapped.len();
        while let Some(item) = inner.next() {
            let item = item.map(str::to_owned);
            self.unwrapped.push_back(item.map_err(|e| Unreadable { line: self.item_line, byte: self.byte, ..e }));
        }
        self.room = inner.room;
        self.counts.add(&inner.counts);
        let cut = self.unwrapped.len() == before + 1 && matches!(self.unwrapped.back(), Some(Err(_)));
        if let Some(event) =
            std::str::from_utf8(bytes).ok().filter(|_| cut).and_then(|text| envelope::salvage(text, time))
        {
            self.unwrapped.pop_back();
            self.unwrapped.push_back(Ok(event));
            self.counts.salvaged += 1;
        }
    }

    fn advance(&mut self) -> Option<Found> {
        loop {
            self.comma = false;
            let line = self.line;
            self.skip_blanks();
            self.item_line = self.line;
            let Some(&byte) = self.buf[..self.end].get(self.pos) else { return self.finish() };
            if byte == b'{' && self.line > line && self.list_broke_off() {
                self.frames.clear();
                self.after_item = false;
                return Some(self.unreadable(RejectReason::NotJson, "the list is cut off", self.pos..self.pos));
            }
            let found = match (byte, self.frames.is_empty()) {
                (b']', false) => self.close_list(),
                (b'[', true) => {
                    self.open_list(1, Frame::Array);
                    None
                }
                (b'{', true) => match self.line() {
                    Some(range) => Some(Found::Text(range)),
                    None => self.value(),
                },
                (b'{' | b'[' | b'"', false) => self.value(),
                (_, top) => Some(self.garbage(top)),
            };
            if found.is_some() {
                self.after_item = !self.frames.is_empty();
                return found;
            }
        }
    }

    /// Whether the object on a new line at `pos` belongs to no list although one is open: it stands there
    /// without a comma, or is itself a list in a list of events.
    fn list_broke_off(&mut self) -> bool {
        while !self.frames.is_empty() && self.end - self.pos < 32 && self.fill() {}
        let list = self.buf[self.pos..self.end].starts_with(b"{\"kind\":\"EventList\"");
        (self.after_item && !self.comma) || (list && matches!(self.frames.last(), Some(Frame::Items(_))))
    }

    /// Consumes the `n` bytes before the list's first item.
    fn open_list(&mut self, n: usize, frame: Frame) {
        if self.frames.is_empty() {
            self.list_line = self.line;
        }
        self.consume(n);
        self.frames.push(frame);
        self.after_item = false;
    }

    /// Reads more behind `end`; false at the end of the stream.
    fn fill(&mut self) -> bool {
        if self.eof {
            return false;
        }
        if self.pos > 0 && (self.pos == self.end || self.buf.len() - self.end < CHUNK) {
            self.buf.copy_within(self.pos..self.end, 0);
            self.end -= self.pos;
            self.pos = 0;
            if self.end < CHUNK && self.buf.len() > 16 * CHUNK {
                self.buf.truncate(2 * CHUNK);
                self.buf.shrink_to_fit();
            }
        }
        if self.buf.len() - self.end < CHUNK {
            let room = (self.end + CHUNK).max(self.buf.len() + self.buf.len() / 2);
            self.buf.resize(room, 0);
        }
        loop {
            match self.input.read(&mut self.buf[self.end..]) {
                Ok(0) => self.eof = true,
                Ok(n) => {
                    self.end += n;
                    return true;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    self.failed = Some(e);
                    self.eof = true;
                }
            }
            return false;
        }
    }

    /// Reads more; true when there is no more and `scanner` has had its last look knowing that.
    fn ends(&mut self, scanner: &mut Scanner) -> bool {
        !self.fill() && std::mem::replace(&mut scanner.ended, true)
    }

    fn consume(&mut self, n: usize) {
        self.line += memchr_iter(b'\n', &self.buf[self.pos..self.pos + n]).count() as u64;
        self.pos += n;
        self.byte += n as u64;
    }

    /// Whitespace, commas between items, and a byte order mark at the very start.
    fn skip_blanks(&mut self) {
        loop {
            let rest = &self.buf[self.pos..self.end];
            if self.byte == 0 && rest.len() < 3 && self.fill() {
                continue;
            }
            let rest = &self.buf[self.pos..self.end];
            let mark = if self.byte == 0 && rest.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
            let blank = |b: &&u8| b.is_ascii_whitespace() || **b == b',';
            let n = mark + rest[mark..].iter().take_while(blank).count();
            self.comma |= rest[..n].contains(&b',');
            let all = n == rest.len();
            self.consume(n);
            if !all || !self.fill() {
                return;
            }
        }
    }

    /// The common case: a line that begins like an event, ends like an object and holds no second one.
    fn line(&mut self) -> Option<Range<usize>> {
        let mut searched = 0;
        let length = loop {
            let rest = &self.buf[self.pos..self.end];
            if searched == 0 && rest.len() >= 16 && !starts_like_event(rest) {
                return None;
            }
            if let Some(n) = memchr(b'\n', &rest[searched..]) {
                break searched + n;
            }
            searched = rest.len();
            if searched > self.limits.item || !self.fill() {
                break searched;
            }
        };
        let line = &self.buf[self.pos..self.pos + length];
        let text = line.trim_ascii_end();
        let fits = text.ends_with(b"}") && text.len() <= self.limits.item;
        if !fits || second_start(text).is_none_or(|finder| finder.find(&text[1..]).is_some()) {
            return None;
        }
        let range = self.pos..self.pos + text.len();
        // The newline is left: counting it is all the next call has to do.
        self.pos += length;
        self.byte += length as u64;
        Some(range)
    }

    fn value(&mut self) -> Option<Found> {
        let mut scanner =
            Scanner::new(self.frames.is_empty() || self.line == self.list_line, self.frames.len() < MAX_NESTED);
        scanner.item = !self.frames.is_empty();
        let mut dropped = false;
        loop {
            match scanner.scan(&self.buf[self.pos..self.end]) {
                Step::End(n) if scanner.empty_list && is_list(&self.buf[self.pos..self.pos + n]) => {
                    self.consume(n);
                    return None;
                }
                Step::End(n) => {
                    let range = self.pos..self.pos + n;
                    if dropped || n > self.limits.item {
                        return Some(self.without_bodies(&scanner, n));
                    }
                    self.consume(n);
                    return Some(Found::Text(range));
                }
                Step::List(n) => {
                    scanner.forget();
                    self.open_list(n, Frame::Items(scanner));
                    return None;
                }
                Step::Damage(n) => return Some(self.cut_line(n)),
                Step::Next(n) => return Some(self.no_quote(n)),
                Step::More => {}
            }
            if self.end - self.pos > self.limits.item {
                dropped = true;
                self.shed(&mut scanner);
                if self.end - self.pos > self.limits.item + CHUNK {
                    return Some(self.too_large(scanner));
                }
            }
            if self.ends(&mut scanner) {
                let reason = if self.failed.is_some() { RejectReason::BadBody } else { RejectReason::NotJson };
                let bad = self.unreadable(reason, "cut off: the input ends within this item", self.pos..self.end);
                self.consume(self.end - self.pos);
                self.frames.clear();
                self.failed = None;
                return Some(bad);
            }
        }
    }

    /// A value, and the lists it is in, end without an end at the newline `n` bytes on.
    fn cut_line(&mut self, n: usize) -> Found {
        let bad = self.unreadable(RejectReason::NotJson, "the line is cut off", self.pos..self.pos + n);
        self.consume(n);
        self.list_cut = (!self.frames.is_empty()).then_some(self.line);
        self.frames.clear();
        bad
    }

    /// An item without its end; the next one begins `n` bytes on.
    fn no_quote(&mut self, n: usize) -> Found {
        let bad = self.unreadable(RejectReason::NotJson, "a quote is missing", self.pos..self.pos + n);
        self.consume(n);
        bad
    }

    /// Throws away what is known of the bodies of the value at `pos`, but for their first byte.
    fn shed(&mut self, scanner: &mut Scanner) {
        let bodies: Vec<(usize, usize)> = scanner.bodies.iter().copied().chain(scanner.open_body()).collect();
        for (start, end) in bodies.into_iter().rev().filter(|(start, end)| end - start > 2) {
            let (from, to) = (start + 1, end - 1);
            let newlines = memchr_iter(b'\n', &self.buf[self.pos + from..self.pos + to]).count();
            self.buf.copy_within(self.pos + to..self.end, self.pos + from);
            self.end -= to - from;
            self.line += newlines as u64;
            self.byte += (to - from) as u64;
            scanner.cut(from, to);
        }
    }

    /// The value of `n` bytes at `pos` with `null` for bodies and the annotation that says so.
    fn without_bodies(&mut self, scanner: &Scanner, n: usize) -> Found {
        let value = &self.buf[self.pos..self.pos + n];
        let mut edits: Vec<(Range<usize>, String)> =
            scanner.bodies.iter().map(|(start, end)| (*start..*end, "null".to_owned())).collect();
        let mark = format!(r#""{BODIES_DROPPED}":"true""#);
        edits.push(match scanner.annotations {
            Some(at) => {
                let empty = value[at..].trim_ascii_start().starts_with(b"}");
                (at..at, if empty { mark } else { mark + "," })
            }
            None => (n - 1..n - 1, format!(r#","annotations":{{{mark}}}"#)),
        });
        edits.sort_by_key(|(range, _)| range.start);
        let mut text = Vec::new();
        let mut at = 0;
        for (range, new) in edits {
            // In JSON a body ends before its object does and annotations are in none; this is not JSON.
            let Some(between) = value.get(at..range.start) else {
                let bad = self.unreadable(RejectReason::NotJson, "its braces do not fit", self.pos..self.pos + n);
                self.consume(n);
                return bad;
            };
            text.extend_from_slice(between);
            text.extend_from_slice(new.as_bytes());
            at = range.end;
        }
        text.extend_from_slice(&value[at..]);
        let range = self.pos..self.pos + n;
        if text.len() > self.limits.item {
            let bad = self.unreadable(RejectReason::TooLarge, &self.too_large_detail(), range);
            self.consume(n);
            return bad;
        }
        self.scratch = String::from_utf8_lossy(&text).into_owned();
        self.consume(n);
        Found::Rebuilt
    }

    fn too_large_detail(&self) -> String {
        format!("larger than {} bytes even without its bodies", self.limits.item)
    }

    /// Passes over the rest of a value that is too large.
    fn too_large(&mut self, mut scanner: Scanner) -> Found {
        let bad = self.unreadable(RejectReason::TooLarge, &self.too_large_detail(), self.pos..self.end);
        scanner.lists = false;
        self.pass_over(&mut scanner);
        bad
    }

    /// Consumes to the end of the value `scanner` is in, without keeping it; false if it has none.
    fn pass_over(&mut self, scanner: &mut Scanner) -> bool {
        loop {
            match scanner.scan(&self.buf[self.pos..self.end]) {
                Step::End(n) | Step::Damage(n) | Step::Next(n) => {
                    self.consume(n);
                    return true;
                }
                Step::List(_) | Step::More => {
                    let n = scanner.at.min(self.end - self.pos);
                    self.consume(n);
                    scanner.at = 0;
                    scanner.forget();
                }
            }
            if self.ends(scanner) {
                self.consume(self.end - self.pos);
                return false;
            }
        }
    }

    fn close_list(&mut self) -> Option<Found> {
        self.consume(1);
        let closed = self.frames.pop();
        self.after_item = !self.frames.is_empty();
        let Some(Frame::Items(mut scanner)) = closed else { return None };
        scanner.list_ended();
        loop {
            match scanner.scan(&self.buf[self.pos..self.end]) {
                Step::List(n) => {
                    scanner.forget();
                    self.open_list(n, Frame::Items(scanner));
                    return None;
                }
                Step::End(n) => {
                    self.consume(n);
                    return None;
                }
                Step::Damage(n) => return Some(self.cut_line(n)),
                Step::Next(n) => return Some(self.no_quote(n)),
                Step::More => {
                    let n = scanner.at.min(self.end - self.pos);
                    // A member's name may be half read; names are short, a value between is not kept.
                    if n > CHUNK {
                        self.consume(n);
                        scanner.at = 0;
                        scanner.forget();
                    }
                }
            }
            if self.ends(&mut scanner) {
                self.frames.push(Frame::Array);
                self.consume(self.end - self.pos);
                return None;
            }
        }
    }

    /// Something no value starts with: to the end of the line, or in a list to the next item.
    fn garbage(&mut self, top: bool) -> Found {
        let start = self.pos;
        let detail = if top { "not JSON" } else { "not an event: a bare value in a list" };
        let mut excerpt = Vec::new();
        let (line, byte) = (self.line, self.byte);
        loop {
            let rest = &self.buf[self.pos..self.end];
            let resumes =
                (top && self.list_cut.is_some_and(|line| self.line <= line + 1)).then(|| next_item(rest)).flatten();
            let stop = if top {
                // The break that cut the item stands first and ends nothing.
                let from = usize::from(resumes.is_some() && rest.first() == Some(&b'\n'));
                let line = memchr(b'\n', &rest[from..]).map(|n| n + from);
                resumes.filter(|item| line.is_none_or(|line| *item < line)).or(line)
            } else {
                rest.iter()
                    .position(|b| matches!(b, b',' | b']' | b'{' | b'\n'))
                    .map(|n| n.max(usize::from(self.pos == start)))
            };
            let n = stop.unwrap_or(rest.len());
            excerpt.extend_from_slice(&rest[..n.min((4 * EXCERPT).saturating_sub(excerpt.len()))]);
            self.consume(n);
            if resumes.is_some() && stop == resumes {
                self.list_cut = None;
                self.frames.push(Frame::Array);
            }
            if stop.is_some() || !self.fill() {
                break;
            }
        }
        let reason = if top { RejectReason::NotJson } else { RejectReason::NotAnEvent };
        let excerpt = redact::excerpt(&excerpt, EXCERPT);
        Found::Unreadable(Unreadable { reason, detail: detail.to_owned(), excerpt, line, byte })
    }

    /// The end of the stream: the last thing to say is what is missing.
    fn finish(&mut self) -> Option<Found> {
        let open = !std::mem::take(&mut self.frames).is_empty();
        if let Some(e) = self.failed.take() {
            let detail = format!("reading stopped: {e}");
            return Some(self.unreadable(RejectReason::BadBody, &detail, self.pos..self.pos));
        }
        open.then(|| {
            self.unreadable(RejectReason::NotJson, "cut off: the input ends within a list", self.pos..self.pos)
        })
    }

    fn unreadable(&self, reason: RejectReason, detail: &str, range: Range<usize>) -> Found {
        Found::Unreadable(Unreadable {
            reason,
            detail: detail.to_owned(),
            excerpt: redact::excerpt(&self.buf[range], EXCERPT),
            line: self.line,
            byte: self.byte,
        })
    }
}

/// Where an item of a list begins behind another one.
fn next_item(text: &[u8]) -> Option<usize> {
    memmem::find_iter(text, b",{").map(|at| at + 1).find(|at| starts_like_event(&text[*at..]))
}

/// How an event begins that came in no wrapper: it is not looked at again.
const BARE: [&[u8]; 2] = [b"{\"kind\":\"Event\"", b"{\"level\":\""];

/// What would begin a second event behind the one this line begins with; `None` if it does not begin like one.
fn second_start(line: &[u8]) -> Option<&'static memmem::Finder<'static>> {
    static FINDERS: LazyLock<[memmem::Finder<'static>; EVENT_STARTS.len()]> =
        LazyLock::new(|| EVENT_STARTS.map(|start| memmem::Finder::new(&start[..10])));
    EVENT_STARTS.iter().position(|start| line.starts_with(start)).map(|i| &FINDERS[i])
}

/// `{"kind":"EventList",…,"items":null}`
fn is_list(value: &[u8]) -> bool {
    memmem::find(value, b"\"EventList\"").is_some() && memmem::find(value, b"\"auditID\"").is_none()
}

#[cfg(test)]
mod tests;
