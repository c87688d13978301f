//! Times the pure parts on a relayed request's path: what one event and one body cost in CPU.
//!
//! `cargo bench --bench wire`; each result is the time per call over the bytes named.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringway::base::Dialect;
use ringway::wire::answer::Answer;
use ringway::wire::sse::Framer;
use ringway::wire::{read_event, request};

const CHUNK: &str = r#"{"id":"chatcmpl-A1b2C3d4E5f6G7h8I9j0","object":"chat.completion.chunk","created":1731000000,"model":"deepseek-chat","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":" over the lazy"},"logprobs":null,"finish_reason":null}]}"#;
const FINISH: &str = r#"{"id":"chatcmpl-A1b2C3d4E5f6G7h8I9j0","object":"chat.completion.chunk","created":1731000000,"model":"deepseek-chat","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":57,"completion_tokens":118,"total_tokens":175,"prompt_tokens_details":{"cached_tokens":32}}}"#;
const DELTA: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" over the lazy"}}"#;

fn request_body(bytes: usize) -> String {
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(bytes / 45);
    format!(r#"{{"model":"chat","messages":[{{"role":"user","content":"{prompt}"}}],"temperature":0.7,"stream":true}}"#)
}

fn answer_body(bytes: usize) -> String {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(bytes / 45);
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1731000000,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":57,"completion_tokens":118,"total_tokens":175}}}}"#
    )
}

fn events(c: &mut Criterion) {
    let mut group = c.benchmark_group("event");
    for (name, dialect, event, data) in [
        ("openai content", Dialect::OpenAi, "", CHUNK),
        ("openai finish with usage", Dialect::OpenAi, "", FINISH),
        ("anthropic content", Dialect::Anthropic, "content_block_delta", DELTA),
    ] {
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| read_event(dialect, black_box(event.as_bytes()), black_box(data.as_bytes())));
        });
    }
    let frame = format!("data: {CHUNK}\n\n");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("frame", |b| {
        b.iter_batched_ref(
            Framer::new,
            |framer| framer.next(black_box(frame.as_bytes())).map(|frame| frame.len),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("body");
    for bytes in [1 << 10, 64 << 10] {
        let request = request_body(bytes);
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(format!("request of {} KiB, scanned and patched", bytes >> 10), |b| {
            b.iter(|| {
                let scan = request::scan(black_box(request.as_bytes())).expect("a sound request");
                request::rewrite(&scan, Some("deepseek-chat"), true).len_after(request.len())
            });
        });
        let answer = answer_body(bytes);
        group.throughput(Throughput::Bytes(answer.len() as u64));
        group.bench_function(format!("answer of {} KiB, read along", bytes >> 10), |b| {
            b.iter(|| Answer::read(Dialect::OpenAi, black_box(answer.as_bytes())));
        });
    }
    let vector = format!(
        r#"{{"object":"list","data":[{{"embedding":[{}]}}],"usage":{{"prompt_tokens":5}}}}"#,
        vec!["-0.0123456"; 1536].join(",")
    );
    group.throughput(Throughput::Bytes(vector.len() as u64));
    group.bench_function("embedding of 1536 numbers, read along", |b| {
        b.iter(|| Answer::read(Dialect::OpenAi, black_box(vector.as_bytes())));
    });
    group.finish();
}

criterion_group!(benches, events, bodies);
criterion_main!(benches);
