//! One coding being undone: the four libraries behind one face.

use brotli_decompressor::reader::StandardAlloc;
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Coding, Fault, Step};

/// The largest window of a zstd frame, as a power of two (RFC 9659 §3).
pub const ZSTD_WINDOW_BITS_MAX: u32 = 23;
/// The largest window of a brotli stream, as a power of two.
pub const BROTLI_WINDOW_BITS_MAX: u32 = 22;

/// Work that a new member of a gzip body counts for: it sets up its decoder anew.
const MEMBER_WORK: usize = 4 << 10;

/// `ZSTD_error_frameParameter_windowTooLarge`, as functions return it (zstd_errors.h; its value is stable).
const ZSTD_WINDOW_TOO_LARGE: usize = 16_usize.wrapping_neg();
/// `ZSTD_error_memory_allocation`.
const ZSTD_MEMORY: usize = 64_usize.wrapping_neg();

/// One coding.
pub struct Stage {
    coding: Coding,
    state: State,
    /// What was found wrong; told again by each further call.
    fault: Option<Fault>,
    /// The library's output did not fit the last time.
    more: bool,
}

/// Where a body stands.
enum State {
    /// No byte has come.
    Empty,
    /// The first byte of a deflate body, whose format two bytes tell.
    Sniffing(u8),
    /// Inside. The bytes were looked at already and go ahead of the input.
    Inside(Engine, Ahead),
    /// Behind the last byte of a member or frame.
    Between(Engine),
    /// Nothing may follow.
    Ended,
}

/// At most two bytes.
#[derive(Default)]
struct Ahead {
    bytes: [u8; 2],
    at: usize,
    end: usize,
}

enum Engine {
    Inflate(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(DCtx<'static>),
}

/// What one call of a library did.
struct Ran {
    consumed: usize,
    produced: usize,
    /// The member, frame or stream has ended.
    ended: bool,
    /// What stopped it.
    fault: Option<Fault>,
}

impl Stage {
    pub fn new(coding: Coding) -> Stage {
        Stage { coding, state: State::Empty, fault: None, more: false }
    }

    /// True if the body may end here.
    pub fn is_whole(&self) -> bool {
        self.fault.is_none() && matches!(self.state, State::Empty | State::Between(_) | State::Ended)
    }

    /// As [`super::Decoder::foreign_bytes`]: zstd is in C, and asks the C library for its window.
    pub fn foreign_bytes(&self) -> usize {
        match &self.state {
            State::Inside(Engine::Zstd(context), _) | State::Between(Engine::Zstd(context)) => context.sizeof(),
            _ => 0,
        }
    }

    /// Calls the library once.
    pub fn advance(&mut self, input: &[u8], room: &mut [u8], step: &mut Step) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if input.is_empty() && !self.more {
            return Ok(());
        }
        let outcome = self.run(input, room, step);
        self.fault = outcome.err();
        step.more = self.more;
        outcome
    }

    fn run(&mut self, input: &[u8], room: &mut [u8], step: &mut Step) -> Result<(), Fault> {
        self.enter(input, step)?;
        let State::Inside(engine, ahead) = &mut self.state else { return Ok(()) };
        let rest = input.get(step.consumed..).unwrap_or_default();
        let ran = if ahead.at < ahead.end {
            let ran = engine.run(ahead.bytes.get(ahead.at..ahead.end).unwrap_or_default(), room);
            ahead.at += ran.consumed;
            ran
        } else {
            let ran = engine.run(rest, room);
            step.consumed += ran.consumed;
            ran
        };
        step.produced = ran.produced;
        step.work += ran.produced;
        // A library whose output did not fit goes on without input.
        self.more = !ran.ended && (ran.produced == room.len() || ahead.at < ahead.end);
        if let Some(fault) = ran.fault {
            return Err(fault);
        }
        if ran.ended {
            let ahead_left = ahead.at < ahead.end;
            let state = std::mem::replace(&mut self.state, State::Ended);
            if let (State::Inside(engine, _), Coding::Gzip | Coding::Zstd) = (state, self.coding) {
                self.state = State::Between(engine);
            }
            if ahead_left {
                return Err(Fault::Corrupt);
            }
        }
        Ok(())
    }

    /// Gets inside a member, frame or stream, if there is input.
    fn enter(&mut self, input: &[u8], step: &mut Step) -> Result<(), Fault> {
        let Some(&next) = input.first() else { return Ok(()) };
        match (&mut self.state, self.coding) {
            (State::Inside(..), _) => Ok(()),
            (State::Ended, _) => Err(Fault::Corrupt),
            (State::Empty, Coding::Deflate) => {
                self.state = State::Sniffing(next);
                step.consumed = 1;
                match input.get(1) {
                    Some(_) => self.enter(input.get(1..).unwrap_or_default(), step),
                    None => Ok(()),
                }
            }
            (State::Sniffing(first), _) => {
                let (first, second) = (*first, next);
                let engine = Engine::Inflate(Decompress::new(is_zlib(first, second)));
                self.state = State::Inside(engine, Ahead { bytes: [first, second], at: 0, end: 2 });
                step.consumed += 1;
                Ok(())
            }
            (State::Empty, Coding::Gzip) => self.begin_member(),
            // Zeros or noise behind a member are not a further one.
            (State::Between(_), Coding::Gzip) if next != 0x1f => Err(Fault::Corrupt),
            (State::Between(_), Coding::Gzip) => {
                step.work += MEMBER_WORK;
                self.begin_member()
            }
            (State::Empty, Coding::Brotli) => {
                if brotli_window_bits(next) > BROTLI_WINDOW_BITS_MAX {
                    return Err(Fault::Window);
                }
                let alloc = StandardAlloc::default;
                let state = Box::new(BrotliState::new_strict(alloc(), alloc(), alloc()));
                self.state = State::Inside(Engine::Brotli(state), Ahead::default());
                Ok(())
            }
            (State::Empty, Coding::Zstd) => {
                let mut context = DCtx::try_create().ok_or(Fault::Window)?;
                let windowed = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_BITS_MAX));
                windowed.map_err(|_| Fault::Window)?;
                self.state = State::Inside(Engine::Zstd(context), Ahead::default());
                Ok(())
            }
            (State::Between(_), _) => {
                if let State::Between(engine) = std::mem::replace(&mut self.state, State::Ended) {
                    self.state = State::Inside(engine, Ahead::default());
                }
                Ok(())
            }
        }
    }

    fn begin_member(&mut self) -> Result<(), Fault> {
        self.state = State::Inside(Engine::Inflate(Decompress::new_gzip(15)), Ahead::default());
        Ok(())
    }
}

impl Engine {
    fn run(&mut self, input: &[u8], room: &mut [u8]) -> Ran {
        match self {
            Engine::Inflate(inflate) => {
                let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(input, room, FlushDecompress::None);
                Ran {
                    consumed: usize::try_from(inflate.total_in() - before_in).unwrap_or(input.len()).min(input.len()),
                    produced: usize::try_from(inflate.total_out() - before_out).unwrap_or(room.len()).min(room.len()),
                    ended: matches!(status, Ok(Status::StreamEnd)),
                    fault: status.err().map(|_| Fault::Corrupt),
                }
            }
            Engine::Brotli(state) => {
                let (mut left, mut consumed) = (input.len(), 0);
                let (mut space, mut produced, mut total) = (room.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut consumed,
                    input,
                    &mut space,
                    &mut produced,
                    room,
                    &mut total,
                    state,
                );
                let ended = matches!(result, BrotliResult::ResultSuccess);
                let failed = matches!(result, BrotliResult::ResultFailure);
                Ran { consumed, produced, ended, fault: failed.then_some(Fault::Corrupt) }
            }
            Engine::Zstd(context) => {
                let mut source = InBuffer::around(input);
                let mut target = OutBuffer::around(room);
                let result = context.decompress_stream(&mut target, &mut source);
                let fault = result.err().map(|code| match code {
                    ZSTD_WINDOW_TOO_LARGE | ZSTD_MEMORY => Fault::Window,
                    _ => Fault::Corrupt,
                });
                Ran { consumed: source.pos, produced: target.pos(), ended: result == Ok(0), fault }
            }
        }
    }
}

/// True if a body that begins with these bytes is in the zlib format (RFC 1950 §2.2).
fn is_zlib(cmf: u8, flg: u8) -> bool {
    cmf & 0x0f == 8 && cmf >> 4 <= 7 && (u16::from(cmf) << 8 | u16::from(flg)) % 31 == 0
}

/// The window that a brotli stream with this first byte asks for (RFC 7932 §9.1); the reserved value counts as any.
fn brotli_window_bits(first: u8) -> u32 {
    match (first & 1, first >> 1 & 7) {
        (0, _) => 16,
        (_, 0) => 17,
        (_, n) => 17 + u32::from(n),
    }
}
