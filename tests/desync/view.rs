//! What somebody took a request for.

use super::reader::Request;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub method: String,
    pub target: String,
    /// Bytes of the body, and their CRC-32.
    pub length: usize,
    pub crc: u32,
}

impl View {
    pub fn new(method: &str, target: String, body: &[u8]) -> View {
        let mut crc = flate2::Crc::new();
        crc.update(body);
        View { method: method.to_owned(), target, length: body.len(), crc: crc.sum() }
    }

    pub fn of(request: &Request) -> View {
        View::new(&request.method, request.origin_form(), &request.body)
    }

    /// As an origin tells it, with a number of the request.
    pub fn told(&self, number: u64) -> String {
        format!("{number} {} {:08x} {} {}", self.length, self.crc, self.method, self.target)
    }

    /// The number and the view.
    pub fn read(told: &str) -> Option<(u64, View)> {
        let mut words = told.splitn(5, ' ');
        let number = words.next()?.parse().ok()?;
        let length = words.next()?.parse().ok()?;
        let crc = u32::from_str_radix(words.next()?, 16).ok()?;
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some((number, View { method, target, length, crc }))
    }
}
