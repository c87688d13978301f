//! HPACK (RFC 7541), as much as a client needs that sends one request over and over: its fields as the first request and all
//! later ones carry them, and a decoder that keeps step with the server and hands out the fields of an answer.

use std::collections::VecDeque;
use std::sync::LazyLock;

use crate::http::Malformed;

/// Size of a dynamic table that nobody has said anything about.
pub const TABLE_BYTES: usize = 4096;
/// What an entry of the dynamic table counts beyond its name and value.
const ENTRY_BYTES: usize = 32;
/// Fields of an answer are not longer than this.
const STRING_BYTES_MAX: usize = 16 * 1024;

/// Appendix A, from index 1: name, and value if it has one.
static STATIC: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
    let table = ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|\
         :status 204|:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|\
         accept-encoding gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|\
         authorization|cache-control|content-disposition|content-encoding|content-language|content-length|\
         content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|\
         if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|\
         proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|\
         strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate";
    table.split('|').map(|entry| entry.split_once(' ').unwrap_or((entry, ""))).collect()
});

/// The fields of one request in their encodings.
#[derive(Debug)]
pub struct Section {
    /// For a server without a dynamic table of [`TABLE_BYTES`].
    pub plain: Vec<u8>,
    /// For the first request of a connection: what the static table lacks goes into the dynamic one.
    pub first: Vec<u8>,
    /// For every later one: nothing but indices.
    pub again: Vec<u8>,
}

impl Section {
    /// Encodes `fields`, whose names are in lower case.
    pub fn new(fields: &[(String, String)]) -> Self {
        let whole = |(name, value): &(String, String)| STATIC.iter().position(|entry| *entry == (name, value));
        let inserted = fields.iter().filter(|field| whole(field).is_none());
        let count = inserted.clone().count();
        let table_bytes: usize = inserted.map(|(name, value)| name.len() + value.len() + ENTRY_BYTES).sum();
        // The dynamic table may not be used, says the first byte.
        let (mut plain, mut first, mut again) = (vec![0x20], Vec::new(), Vec::new());
        let mut number = 0;
        for field in fields {
            if let Some(at) = whole(field) {
                for section in [&mut plain, &mut first, &mut again] {
                    integer(section, 0x80, 7, at + 1);
                }
                continue;
            }
            literal(&mut plain, 0x00, 4, field);
            literal(&mut first, 0x40, 6, field);
            // The newest entry comes first.
            integer(&mut again, 0x80, 7, STATIC.len() + count - number);
            number += 1;
        }
        if table_bytes > TABLE_BYTES {
            (first, again) = (plain.clone(), plain.clone());
        }
        Section { plain, first, again }
    }
}

fn literal(section: &mut Vec<u8>, pattern: u8, prefix_bits: u32, (name, value): &(String, String)) {
    match STATIC.iter().position(|entry| entry.0 == name) {
        Some(at) => integer(section, pattern, prefix_bits, at + 1),
        None => {
            section.push(pattern);
            string(section, name);
        }
    }
    string(section, value);
}

fn string(section: &mut Vec<u8>, text: &str) {
    integer(section, 0x00, 7, text.len());
    section.extend_from_slice(text.as_bytes());
}

/// Section 5.1: `value` in the low `prefix_bits` of a byte with `pattern`, and in the bytes after it.
fn integer(section: &mut Vec<u8>, pattern: u8, prefix_bits: u32, value: usize) {
    let most = (1 << prefix_bits) - 1;
    if value < most {
        section.push(pattern | value as u8);
        return;
    }
    section.push(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        section.push(0x80 | (rest % 0x80) as u8);
        rest /= 0x80;
    }
    section.push(rest as u8);
}

/// The server's side of a connection: what its indices mean.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
    /// What the server may set `bytes_max` to.
    limit: usize,
}

impl Decoder {
    /// With a dynamic table of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Decoder { entries: VecDeque::new(), bytes: 0, bytes_max: limit, limit }
    }

    /// Decodes one field section; `field` gets names and values.
    ///
    /// # Errors
    /// It is no field section.
    pub fn decode(&mut self, section: &[u8], mut field: impl FnMut(&[u8], &[u8])) -> Result<(), Malformed> {
        let mut input = Input(section);
        while let Some(&byte) = input.0.first() {
            if byte & 0x80 != 0 {
                let (name, value) = self.entry(input.integer(7)?)?;
                field(name, value);
            } else if byte & 0xe0 == 0x20 {
                self.bytes_max = input.integer(5)?;
                if self.bytes_max > self.limit {
                    return Err(Malformed("HPACK: table larger than allowed"));
                }
                self.evict(0);
            } else {
                let indexed = byte & 0x40 != 0;
                let name = match input.integer(if indexed { 6 } else { 4 })? {
                    0 => input.string()?,
                    at => self.entry(at)?.0.to_vec(),
                };
                let value = input.string()?;
                field(&name, &value);
                if indexed {
                    self.insert(name, value);
                }
            }
        }
        Ok(())
    }

    fn entry(&self, at: usize) -> Result<(&[u8], &[u8]), Malformed> {
        let at = at.checked_sub(1).ok_or(Malformed("HPACK: index 0"))?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(at - STATIC.len()).ok_or(Malformed("HPACK: unknown index"))?;
        Ok((&entry.0, &entry.1))
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let bytes = name.len() + value.len() + ENTRY_BYTES;
        self.evict(bytes);
        // An entry that is too large for the table empties it, and is no error.
        if bytes <= self.bytes_max {
            self.bytes += bytes;
            self.entries.push_front((name, value));
        }
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, wanted: usize) {
        while self.bytes + wanted > self.bytes_max {
            let Some((name, value)) = self.entries.pop_back() else { break };
            self.bytes -= name.len() + value.len() + ENTRY_BYTES;
        }
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed("HPACK: cut short"))?;
        self.0 = rest;
        Ok(byte)
    }

    fn integer(&mut self, prefix_bits: u32) -> Result<usize, Malformed> {
        let most = (1 << prefix_bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("HPACK: integer too long"))
    }

    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let is_coded = self.0.first().is_some_and(|byte| byte & 0x80 != 0);
        let length = self.integer(7)?;
        if length > STRING_BYTES_MAX {
            return Err(Malformed("HPACK: string too long"));
        }
        let (string, rest) = self.0.split_at_checked(length).ok_or(Malformed("HPACK: cut short"))?;
        self.0 = rest;
        if is_coded { HUFFMAN.decode(string) } else { Ok(string.to_vec()) }
    }
}

/// Appendix B: bits of each symbol's code, the last being the end of a string. The code is canonical, so these say all.
#[rustfmt::skip]
const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28,
    28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13,
    6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6,
    6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23,
    23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23,
    22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21,
    22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const END_OF_STRING: u16 = 256;
const BITS_MAX: usize = 30;

/// Symbols by their code.
struct Huffman {
    /// In the order of their codes.
    symbols: Vec<u16>,
    /// By length in bits: the first code, the place of its symbol, and how many there are.
    lengths: [(u32, usize, u32); BITS_MAX + 1],
}

static HUFFMAN: LazyLock<Huffman> = LazyLock::new(|| {
    let mut symbols: Vec<u16> = (0..=END_OF_STRING).collect();
    symbols.sort_by_key(|&symbol| (CODE_BITS[usize::from(symbol)], symbol));
    let mut lengths = [(0, 0, 0); BITS_MAX + 1];
    let (mut code, mut place) = (0, 0);
    for (bits, length) in lengths.iter_mut().enumerate() {
        let count = CODE_BITS.iter().filter(|&&own| usize::from(own) == bits).count();
        code <<= 1;
        *length = (code, place, count as u32);
        code += count as u32;
        place += count;
    }
    Huffman { symbols, lengths }
});

impl Huffman {
    fn decode(&self, string: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut text = Vec::with_capacity(string.len() * 8 / 5);
        let (mut code, mut bits) = (0_u32, 0);
        for bit in string.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1))) {
            code = code << 1 | bit;
            bits += 1;
            let (first, place, count) = self.lengths[bits];
            if code.wrapping_sub(first) < count {
                let symbol = self.symbols[place + (code - first) as usize];
                text.push(u8::try_from(symbol).map_err(|_| Malformed("HPACK: end within a string"))?);
                (code, bits) = (0, 0);
            }
        }
        // What is left is the beginning of the end's code: ones.
        if bits > 7 || code != (1 << bits) - 1 { Err(Malformed("HPACK: bad padding")) } else { Ok(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    fn fields(decoder: &mut Decoder, section: &[u8]) -> Result<Vec<String>, Malformed> {
        let mut got = Vec::new();
        let text = String::from_utf8_lossy;
        decoder.decode(section, |name, value| got.push(format!("{}: {}", text(name), text(value))))?;
        Ok(got)
    }

    #[test]
    fn the_answers_of_the_standard_decode_with_a_table_that_overflows() {
        // RFC 7541, C.6.
        let mut decoder = Decoder::new(256);
        for (section, expected) in [
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                vec![
                    ":status: 302",
                    "cache-control: private",
                    "date: Mon, 21 Oct 2013 20:13:21 GMT",
                    "location: https://www.example.com",
                ],
            ),
            (
                "4883 640e ffc1 c0bf",
                vec![
                    ":status: 307",
                    "cache-control: private",
                    "date: Mon, 21 Oct 2013 20:13:21 GMT",
                    "location: https://www.example.com",
                ],
            ),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                vec![
                    ":status: 200",
                    "cache-control: private",
                    "date: Mon, 21 Oct 2013 20:13:22 GMT",
                    "location: https://www.example.com",
                    "content-encoding: gzip",
                    "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                ],
            ),
        ] {
            assert_eq!(fields(&mut decoder, &bytes(section)).unwrap(), expected);
        }
        assert_eq!((decoder.entries.len(), decoder.bytes), (3, 215));
    }

    #[test]
    fn a_request_decodes_to_its_fields_the_first_time_and_every_later_one() {
        let request: Vec<(String, String)> = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            ("authorization", &"x".repeat(200)),
            ("x-own", "1"),
            ("accept", "*/*"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let expected: Vec<String> = request.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let section = Section::new(&request);
        let mut decoder = Decoder::new(TABLE_BYTES);
        for form in [&section.first, &section.again, &section.again] {
            assert_eq!(fields(&mut decoder, form).unwrap(), expected);
        }
        assert_eq!(section.again.len(), request.len());
        assert_eq!(fields(&mut Decoder::new(0), &section.plain).unwrap(), expected);

        // More than the table holds: no index would outlive its request.
        let long: Vec<(String, String)> = (0..50).map(|number| (format!("x-{number}"), "y".repeat(100))).collect();
        let section = Section::new(&long);
        let mut decoder = Decoder::new(TABLE_BYTES);
        for form in [&section.first, &section.again] {
            assert_eq!(fields(&mut decoder, form).unwrap().len(), 50);
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for (name, section) in [
            ("index 0", "80"),
            ("index beyond the table", "be"),
            ("cut integer", "ff80"),
            ("endless integer", "ffffffffffff7f"),
            ("cut string", "400a6375"),
            ("padding of a byte", "4082 1fff 00"),
            ("padding of zeros", "4081 18 00"),
            ("table too large", "3fe2 1f"),
        ] {
            assert!(fields(&mut Decoder::new(TABLE_BYTES), &bytes(section)).is_err(), "{name}");
        }
    }
}
