//! Files of the fixed mode: uploads swallowed and counted, downloads of any length, at the least cost.
//!
//! `POST …/files` is read to its end and answered with the bytes of its body; `GET …/files/N/content` is answered with
//! N bytes, `GET …/files/N-chunked/content` with as many in chunks.

/// The longest body either way, in bytes: 1 GiB.
pub(super) const FILE_BYTES_MAX: usize = 1 << 30;
/// Read or written at once, in bytes.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// Bytes of a chunk of what is sent.
const CHUNK_BYTES: usize = 16 << 10;
/// A line with a chunk's size may have so many bytes.
const SIZE_LINE_BYTES_MAX: usize = 64;

/// True if `path` is where files go.
pub(super) fn is_upload(path: &str) -> bool {
    path.ends_with("/files")
}

/// A file to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Download {
    bytes: usize,
    chunked: bool,
}

impl Download {
    /// What `path` asks for, if it asks for a file.
    pub(super) fn of_path(path: &str) -> Option<Download> {
        let (_, id) = path.strip_suffix("/content")?.rsplit_once("/files/")?;
        let (bytes, chunked) = id.strip_suffix("-chunked").map_or((id, false), |bytes| (bytes, true));
        let bytes = bytes.parse().ok().filter(|bytes| *bytes <= FILE_BYTES_MAX)?;
        Some(Download { bytes, chunked })
    }

    /// The head of the answer.
    pub(super) fn head(&self) -> String {
        let framing = match self.chunked {
            true => "transfer-encoding: chunked".to_owned(),
            false => format!("content-length: {}", self.bytes),
        };
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n{framing}\r\n\r\n")
    }

    /// The next piece of the body as it goes out, cut out of `block`; `None` at the end.
    pub(super) fn next<'a>(&mut self, block: &'a Block) -> Option<Piece<'a>> {
        if !self.chunked {
            let take = self.bytes.min(block.plain.len());
            self.bytes -= take;
            return (take > 0).then(|| Piece::Block(&block.plain[..take]));
        }
        let whole = (self.bytes / CHUNK_BYTES).min(block.chunks.len() / block.chunk_len);
        if whole > 0 {
            self.bytes -= whole * CHUNK_BYTES;
            return Some(Piece::Block(&block.chunks[..whole * block.chunk_len]));
        }
        self.chunked = false;
        let mut last = Vec::new();
        push_chunk(&mut last, std::mem::take(&mut self.bytes));
        last.extend_from_slice(b"0\r\n\r\n");
        Some(Piece::Last(last))
    }
}

/// Bytes to send.
pub(super) enum Piece<'a> {
    /// Made before.
    Block(&'a [u8]),
    /// The odd end of a chunked body.
    Last(Vec<u8>),
}

impl AsRef<[u8]> for Piece<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Piece::Block(bytes) => bytes,
            Piece::Last(bytes) => bytes,
        }
    }
}

/// What files consist of, made once.
pub(super) struct Block {
    plain: Vec<u8>,
    chunks: Vec<u8>,
    /// Of one chunk with its framing.
    chunk_len: usize,
}

impl Block {
    pub(super) fn new() -> Block {
        let mut chunks = Vec::with_capacity(PIECE_BYTES + 1024);
        push_chunk(&mut chunks, CHUNK_BYTES);
        let chunk_len = chunks.len();
        for _ in 1..PIECE_BYTES / CHUNK_BYTES {
            push_chunk(&mut chunks, CHUNK_BYTES);
        }
        Block { plain: vec![b'x'; PIECE_BYTES], chunks, chunk_len }
    }
}

fn push_chunk(out: &mut Vec<u8>, bytes: usize) {
    if bytes > 0 {
        out.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
        out.resize(out.len() + bytes, b'x');
        out.extend_from_slice(b"\r\n");
    }
}

/// A body that is counted and not kept.
#[derive(Debug)]
pub(super) enum Upload {
    /// So many bytes are still to come.
    Length {
        /// Those.
        left: usize,
        /// Of the body, so far.
        seen: usize,
    },
    /// In chunks.
    Chunked {
        /// Of the present chunk with its line break; 0 where a size is expected.
        left: usize,
        /// A size that is not whole yet.
        line: Vec<u8>,
        /// The last chunk has come, and what follows are trailers.
        last: bool,
        /// Of the body, so far.
        seen: usize,
    },
}

/// How far an upload has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Swallowed {
    /// All was used, and more is to come.
    Partial,
    /// It is whole.
    Whole {
        /// Bytes of the input that belonged to it.
        used: usize,
        /// Bytes of its body.
        bytes: usize,
    },
    /// It is longer than allowed, or no chunks.
    Malformed,
}

impl Upload {
    /// A body of so many bytes; of chunks if that was not said.
    pub(super) fn new(length: Option<usize>) -> Upload {
        match length {
            Some(left) => Upload::Length { left, seen: 0 },
            None => Upload::Chunked { left: 0, line: Vec::new(), last: false, seen: 0 },
        }
    }

    /// Takes what has come.
    pub(super) fn feed(&mut self, input: &[u8]) -> Swallowed {
        match self {
            Upload::Length { left, seen } => {
                let take = input.len().min(*left);
                (*left, *seen) = (*left - take, *seen + take);
                if *left == 0 { Swallowed::Whole { used: take, bytes: *seen } } else { Swallowed::Partial }
            }
            Upload::Chunked { left, line, last, seen } => {
                let mut at = 0;
                while at < input.len() {
                    if *left > 0 {
                        let take = (input.len() - at).min(*left);
                        (*left, at) = (*left - take, at + take);
                        continue;
                    }
                    line.push(input[at]);
                    at += 1;
                    if line.len() > SIZE_LINE_BYTES_MAX {
                        return Swallowed::Malformed;
                    }
                    let Some(text) = line.strip_suffix(b"\r\n") else { continue };
                    if *last && text.is_empty() {
                        return Swallowed::Whole { used: at, bytes: *seen };
                    }
                    if !*last {
                        let digits = text.split(|byte| *byte == b';').next().unwrap_or_default();
                        let size = std::str::from_utf8(digits).ok();
                        let size = size.and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
                        let Some(size) = size.filter(|size| *size <= FILE_BYTES_MAX - *seen) else {
                            return Swallowed::Malformed;
                        };
                        *seen += size;
                        *last = size == 0;
                        *left = if *last { 0 } else { size + 2 };
                    }
                    line.clear();
                }
                Swallowed::Partial
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_counted_wherever_it_is_split() {
        let chunked: &[u8] = b"5\r\nhello\r\nb;x=y\r\n world,\r\nhi\r\n0\r\nx: y\r\n\r\n";
        for (length, body, bytes) in [(Some(5), &b"hello"[..], 5), (None, chunked, 16), (None, b"0\r\n\r\n", 0)] {
            for cut in 0..body.len() {
                let mut upload = Upload::new(length);
                assert_eq!(upload.feed(&body[..cut]), Swallowed::Partial, "{length:?} {cut}");
                let rest = [&body[cut..], b"GET "].concat();
                let whole = Swallowed::Whole { used: body.len() - cut, bytes };
                assert_eq!(upload.feed(&rest), whole, "{length:?} {cut}");
            }
        }
        assert_eq!(Upload::new(Some(0)).feed(b""), Swallowed::Whole { used: 0, bytes: 0 });
    }

    #[test]
    fn what_is_no_chunk_or_too_long_is_malformed() {
        let most = format!("{FILE_BYTES_MAX:x}\r\n");
        assert_eq!(Upload::new(None).feed(most.as_bytes()), Swallowed::Partial);
        let more = format!("{:x}\r\n", FILE_BYTES_MAX + 1);
        let two = format!("1\r\nx\r\n{most}");
        for body in ["zz\r\n", "\r\n", more.as_str(), two.as_str(), "1".repeat(SIZE_LINE_BYTES_MAX + 1).as_str()] {
            assert_eq!(Upload::new(None).feed(body.as_bytes()), Swallowed::Malformed, "{body:?}");
        }
    }

    #[test]
    fn a_download_has_the_length_its_path_says() {
        let block = Block::new();
        for bytes in [0, 1, CHUNK_BYTES, PIECE_BYTES, PIECE_BYTES + CHUNK_BYTES + 7] {
            for (suffix, head) in [("", format!("content-length: {bytes}")), ("-chunked", "chunked".to_owned())] {
                let path = format!("/v1/files/{bytes}{suffix}/content");
                let mut download = Download::of_path(&path).expect("a file");
                assert!(download.head().contains(&head), "{path}");
                let mut sent = Vec::new();
                while let Some(piece) = download.next(&block) {
                    sent.extend_from_slice(piece.as_ref());
                }
                let length = Some(bytes).filter(|_| suffix.is_empty());
                assert_eq!(Upload::new(length).feed(&sent), Swallowed::Whole { used: sent.len(), bytes }, "{path}");
            }
        }
        for path in
            ["/v1/files/x/content", "/v1/files/1", "/v1/models", &format!("/files/{}/content", FILE_BYTES_MAX + 1)]
        {
            assert_eq!(Download::of_path(path), None, "{path}");
        }
    }
}
