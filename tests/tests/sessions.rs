//! Conversations beside each other: saved and restored, forked, cut. What a conversation gives next is, bit for bit, what it gave
//! before.

use openweights::{
    backend::Backend,
    engine::Model,
    generate::Params,
    sessions::{FIRST, saved},
    text::Message,
    weights::{self, store::Storage, store_memory::MemoryStorage},
};
use openweights_tests::{answer, cpu, fixture, gpu, greedy, ids, json, load, load_for, reference, smollm2_gguf};
use pollster::block_on;

/// Full attention, windows, convolution states, experts.
const TINY: [&str; 5] = ["llama_plain", "gemma3", "mistral_swa", "lfm2_conv", "mixtral_moe"];
const DIGEST: &str = "the model's digest";

fn tiny(name: &str, backend: fn() -> Box<dyn Backend>) -> (Model, Vec<u32>) {
    let checkpoint = weights::open(&fixture(&format!("tiny/{name}"))).expect("the checkpoint opens");
    let golden = json(&format!("tiny/{name}/golden.json"));
    let all = [ids(&golden["input_ids"]), ids(&golden["greedy_ids"])].concat();
    (load_for(&checkpoint, backend(), None).expect("the model loads"), all)
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|l| l.to_bits()).collect()
}

fn next(model: &mut Model, session: u32, ids: &[u32]) -> Vec<u32> {
    model.use_session(session).expect("a session");
    bits(&block_on(model.next_logits(ids)).expect("logits"))
}

/// Saved by one model, restored by another: the same logits, and only what is new is computed.
fn restored(backend: fn() -> Box<dyn Backend>) {
    for name in TINY {
        let ((mut model, all), storage) = (tiny(name, backend), MemoryStorage::default());
        let (past, now) = all.split_at(all.len() - 4);
        block_on(model.next_logits(past)).expect("a conversation");
        let record = block_on(model.save_session(FIRST, &storage, DIGEST, "chat", 7)).expect("saved");
        assert_eq!((record.tokens, record.saved_ms, record.name.as_str()), (past.len(), 7, "chat"));
        let (mut fresh, _) = tiny(name, backend);
        let session = block_on(fresh.restore_session(&storage, DIGEST, "chat")).expect("restored");
        assert_eq!(fresh.session_tokens(session).expect("open"), past);
        fresh.use_session(session).expect("open");
        for end in past.len() + 1..=all.len() {
            assert_eq!(next(&mut fresh, session, &all[..end]), next(&mut model, FIRST, &all[..end]), "{name}: after {end} tokens");
        }
        let again = block_on(fresh.restore_session(&storage, DIGEST, "chat")).expect("restored");
        fresh.use_session(again).expect("open");
        let params = Params { max_tokens: Some(5), ignore_eos: true, ..Params::default() };
        let reply = answer(&mut fresh, all.clone(), params).expect("an answer");
        assert_eq!(reply.usage.reused_tokens, past.len(), "{name}: only {now:?} is new");
        assert_eq!(reply.ids, greedy(&mut model, &all, 5), "{name}");
    }
}

/// Two branches and their stem do not disturb each other; what was cut gives what a fresh prefill gives.
fn forked(backend: fn() -> Box<dyn Backend>) {
    for name in TINY {
        let (mut model, all) = tiny(name, backend);
        let stem = &all[..20];
        // As each conversation would be by itself: the same steps in a fresh session.
        let mut alone = |then: &[u32]| {
            let session = model.open_session().expect("a session");
            next(&mut model, session, stem);
            let expected = next(&mut model, session, &[stem, then].concat());
            model.close_session(session).expect("open");
            expected
        };
        let (left, right) = (alone(&[5, 6, 7]), alone(&[9, 8]));
        next(&mut model, FIRST, stem);
        let one = block_on(model.fork_session(FIRST)).expect("a fork");
        let two = block_on(model.fork_session(one)).expect("a fork of a fork");
        assert_eq!(next(&mut model, one, &[stem, &[5, 6, 7]].concat()), left, "{name}");
        assert_eq!(next(&mut model, two, &[stem, &[9, 8]].concat()), right, "{name}");
        assert_eq!(next(&mut model, FIRST, &[stem, &[9, 8]].concat()), right, "{name}");
        assert_eq!(model.session_tokens(one).expect("open").len(), stem.len() + 3);

        let left_over = model.truncate_session(one, 12).expect("open");
        assert_eq!(left_over, if name == "lfm2_conv" { 0 } else { 12 }, "{name}");
        let session = model.open_session().expect("a session");
        if left_over > 0 {
            next(&mut model, session, &stem[..left_over]);
        }
        let expected = next(&mut model, session, &[&stem[..12], &[3]].concat());
        assert_eq!(next(&mut model, one, &[&stem[..12], &[3]].concat()), expected, "{name}: cut and continued");
        assert_eq!(model.session_tokens(two).expect("open"), [stem, &[9, 8]].concat(), "{name}: the other branch is whole");
        model.close_session(one).expect("open");
        assert_eq!(model.close_session(one).expect_err("closed").code(), "not_found");
        assert_eq!(model.use_session(one).expect_err("closed").code(), "not_found");
    }
}

#[test]
fn a_restored_conversation_goes_on_bit_for_bit() {
    restored(reference);
    restored(cpu);
    restored(gpu);
}

#[test]
fn branches_do_not_disturb_each_other() {
    forked(reference);
    forked(cpu);
    forked(gpu);
}

#[test]
fn a_session_of_another_backend_is_close() {
    let ((mut cpu, all), (mut reference, _), storage) = (tiny("gemma3", cpu), tiny("gemma3", reference), MemoryStorage::default());
    block_on(cpu.next_logits(&all[..20])).expect("a conversation");
    block_on(cpu.save_session(FIRST, &storage, DIGEST, "chat", 0)).expect("saved");
    let session = block_on(reference.restore_session(&storage, DIGEST, "chat")).expect("the layout is the same");
    reference.use_session(session).expect("open");
    let (a, b) = (block_on(cpu.next_logits(&all)).expect("logits"), block_on(reference.next_logits(&all)).expect("logits"));
    assert!(openweights_tests::largest_difference(&a, &b) < 1e-3);
}

/// A saved session, its storage, and a model to restore it with.
fn a_saved_one() -> (MemoryStorage, Model, saved::Record) {
    let ((mut model, all), storage) = (tiny("llama_plain", cpu), MemoryStorage::default());
    block_on(model.next_logits(&all[..20])).expect("a conversation");
    let record = block_on(model.save_session(FIRST, &storage, DIGEST, "chat", 0)).expect("saved");
    (storage, tiny("llama_plain", cpu).0, record)
}

#[test]
fn what_does_not_belong_here_is_refused() {
    let (storage, mut model, record) = a_saved_one();
    let mut code = |storage: &MemoryStorage, digest: &str, name: &str| {
        block_on(model.restore_session(storage, digest, name)).expect_err("refused").code()
    };
    assert_eq!(code(&storage, DIGEST, "another"), "not_found");
    assert_eq!(code(&storage, "another model", "chat"), "not_found", "a name is a model's own");
    let bytes = block_on(storage.read_record(&record.id)).expect("read").expect("a record");
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8(bytes.clone()).expect("JSON");
        assert!(text.contains(from), "{text}");
        text.replacen(from, to, 1).into_bytes()
    };
    let version = format!("\"engine\":\"{}\"", env!("CARGO_PKG_VERSION"));
    for (record_bytes, expected) in [
        (changed("\"session\":1", "\"session\":2"), "unsupported_format"),
        (changed(&version, "\"engine\":\"0.0.0\""), "unsupported_format"),
        (changed("\"adapters\":[]", "\"adapters\":[\"x * 1\"]"), "invalid_input"),
        (changed(DIGEST, "another digest"), "invalid_input"),
        (changed("\"tokens\":20", "\"tokens\":21"), "invalid_file"),
        (changed("\"tokens\":20", "\"tokens\":200000000"), "context_overflow"),
        (changed("\"tokens\":20", "\"tokens\":-1"), "invalid_file"),
        (changed("\"files\":[", "\"files\":[[],"), "invalid_file"),
        (b"{".to_vec(), "unsupported_format"),
    ] {
        block_on(storage.write_record(&record.id, &record_bytes)).expect("written");
        assert_eq!(code(&storage, DIGEST, "chat"), expected);
    }
}

#[test]
fn a_corrupt_session_is_refused_and_its_text_is_computed_anew() {
    let (storage, mut model, record) = a_saved_one();
    let record_json: serde_json::Value =
        serde_json::from_slice(&block_on(storage.read_record(&record.id)).expect("read").expect("a record")).expect("JSON");
    let sha256 = record_json["manifest"]["files"][0]["sha256"].as_str().expect("a digest").to_owned();
    let good = block_on(storage.read(&sha256, 0, record.bytes() as usize)).expect("the blob");
    let put = |bytes: &[u8]| {
        block_on(storage.remove_blob(&sha256)).expect("removed");
        let mut partial = block_on(storage.begin("blob")).expect("begun");
        block_on(partial.append(bytes)).expect("written");
        block_on(partial.commit(&sha256)).expect("kept");
    };
    for at in [0, 79, 80, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        put(&bad);
        assert_eq!(block_on(model.restore_session(&storage, DIGEST, "chat")).expect_err("refused").code(), "integrity", "byte {at}");
    }
    put(&good[..good.len() - 1]);
    assert_eq!(block_on(model.restore_session(&storage, DIGEST, "chat")).expect_err("refused").code(), "integrity");
    let (mut fresh, all) = tiny("llama_plain", cpu);
    assert_eq!(greedy(&mut model, &all, 5), greedy(&mut fresh, &all, 5));
    put(&good);
    let session = block_on(model.restore_session(&storage, DIGEST, "chat")).expect("whole again");
    assert_eq!(model.session_tokens(session).expect("open"), &all[..20]);
}

#[test]
fn saving_again_replaces_and_removing_leaves_nothing() {
    let (storage, mut model, first) = a_saved_one();
    let session = block_on(model.restore_session(&storage, DIGEST, "chat")).expect("restored");
    model.truncate_session(session, 9).expect("open");
    let second = block_on(model.save_session(session, &storage, DIGEST, "chat", 5)).expect("saved");
    assert_eq!((first.id == second.id, second.tokens), (true, 9));
    let other = block_on(model.save_session(session, &storage, DIGEST, "a copy", 3)).expect("saved");
    assert_eq!(block_on(storage.blobs()).expect("blobs").len(), 1, "what is the same is stored once, what was replaced is gone");
    let names = |model| block_on(saved::list(&storage, model)).expect("a list").into_iter().map(|r| r.name).collect::<Vec<_>>();
    assert_eq!(names(Some(DIGEST)), ["a copy", "chat"]);
    assert_eq!(names(None).len(), 2);
    assert_eq!(names(Some("another")), [""; 0]);
    assert!(block_on(weights::store::list(&storage)).expect("models").is_empty(), "a session is no model");
    block_on(saved::remove(&storage, DIGEST, "chat")).expect("removed");
    block_on(weights::store::clean(&storage, |_| false)).expect("cleaned");
    assert_eq!(block_on(storage.blobs()).expect("blobs").len(), 1, "the copy needs it");
    block_on(weights::store::remove(&storage, &other.id)).expect("as a model is");
    assert_eq!(block_on(storage.blobs()).expect("blobs").len(), 0);
    assert_eq!(block_on(saved::remove(&storage, DIGEST, "chat")).expect_err("gone").code(), "not_found");
    assert_eq!(block_on(model.save_session(FIRST, &storage, DIGEST, "none", 0)).expect_err("empty").code(), "invalid_input");
    storage.set_quota(Some(100));
    assert_eq!(block_on(model.save_session(session, &storage, DIGEST, "chat", 0)).expect_err("full").code(), "quota");
    assert_eq!(block_on(storage.partials()).expect("readable"), []);
}

#[test]
fn a_request_ends_when_another_session_is_used() {
    let (mut model, all) = tiny("llama_plain", cpu);
    let session = model.open_session().expect("a session");
    let mut generation = model.start(all.clone(), Params::default()).expect("started");
    assert!(block_on(generation.next(&mut model)).expect("prefill").is_some());
    model.use_session(session).expect("open");
    assert_eq!(block_on(generation.next(&mut model)).expect_err("over").code(), "invalid_input");
    assert!(model.session_tokens(session).expect("open").is_empty());
    assert!(!model.session_tokens(FIRST).expect("open").is_empty(), "what was computed stays");
}

#[test]
fn a_real_chat_is_reopened() {
    let load = || load(&weights::open(&smollm2_gguf()).expect("the GGUF opens"), cpu()).expect("the model loads");
    let say = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let ((mut model, mut reopened), storage) = ((load(), load()), MemoryStorage::default());
    let mut messages = vec![say("user", "Name three rivers of France, and say where each of them flows into the sea.")];
    let params = Params { max_tokens: Some(40), ..Params::default() };
    let prompt = model.chat_prompt(&messages, None).expect("a prompt");
    let reply = answer(&mut model, prompt, params.clone()).expect("an answer");
    messages.extend([say("assistant", &reply.text), say("user", "Which is the longest?")]);
    let record = block_on(model.save_session(FIRST, &storage, DIGEST, "rivers", 0)).expect("saved");
    let prompt = model.chat_prompt(&messages, None).expect("a prompt");
    let expected = answer(&mut model, prompt.clone(), params.clone()).expect("an answer");
    let session = block_on(reopened.restore_session(&storage, DIGEST, "rivers")).expect("restored");
    reopened.use_session(session).expect("open");
    let actual = answer(&mut reopened, prompt.clone(), params).expect("an answer");
    assert_eq!((&actual.ids, actual.usage.reused_tokens), (&expected.ids, expected.usage.reused_tokens));
    let computed = prompt.len() - actual.usage.reused_tokens;
    println!("{} tokens, {} bytes saved; {computed} of {} prompt tokens computed", record.tokens, record.bytes(), prompt.len());
    assert!(computed < 25, "{computed} tokens: only the new message");
}
