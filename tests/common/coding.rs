//! Content codings as a provider or a client would apply them.

use std::io::Write;

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

/// The codings, as they are named in `content-encoding`.
pub const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// `parts` in `coding`, each flushed before the next, and what ends the body; joined they are the whole of it.
pub fn pieces(coding: &str, parts: &[&str]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let last = match coding {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            for part in parts {
                flushed(&mut writer, part);
                pieces.push(std::mem::take(writer.get_mut()));
            }
            writer.finish().expect("gzip")
        }
        "deflate" => {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            for part in parts {
                flushed(&mut writer, part);
                pieces.push(std::mem::take(writer.get_mut()));
            }
            writer.finish().expect("deflate")
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            let mut given = 0;
            for part in parts {
                flushed(&mut writer, part);
                pieces.push(writer.get_ref()[given..].to_vec());
                given = writer.get_ref().len();
            }
            writer.into_inner()[given..].to_vec()
        }
        "zstd" => {
            let mut context = CCtx::create();
            context.set_parameter(CParameter::ChecksumFlag(true)).expect("a checksum");
            for part in parts {
                pieces.push(zstd(&mut context, part.as_bytes(), ZSTD_EndDirective::ZSTD_e_flush));
            }
            zstd(&mut context, b"", ZSTD_EndDirective::ZSTD_e_end)
        }
        _ => panic!("no coding: {coding}"),
    };
    pieces.push(last);
    pieces
}

/// `text` in `coding`.
pub fn encoded(coding: &str, text: &str) -> Vec<u8> {
    pieces(coding, &[text]).concat()
}

fn flushed(writer: &mut impl Write, part: &str) {
    writer.write_all(part.as_bytes()).expect("to memory");
    writer.flush().expect("to memory");
}

fn zstd(context: &mut CCtx<'_>, part: &[u8], how: ZSTD_EndDirective) -> Vec<u8> {
    let (mut piece, mut source) = (Vec::new(), InBuffer::around(part));
    loop {
        let mut room = [0; 4096];
        let mut out = OutBuffer::around(&mut room[..]);
        let left = context.compress_stream2(&mut out, &mut source, how).expect("zstd");
        let made = out.pos();
        piece.extend_from_slice(&room[..made]);
        if left == 0 && source.pos == part.len() {
            return piece;
        }
    }
}
