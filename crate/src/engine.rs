//! The engine: joins checkpoint, network, backend and text into a model that can be asked.

use std::{collections::BTreeSet, rc::Rc};

use serde::Serialize;
use serde_json::Value;

use crate::{
    adapters::{AdapterInfo, Adapters},
    backend::{Backend, BackendInfo, Input, SPARE, Sampling, Session, SessionSpec, Tensor},
    card::Card,
    error::{Error, Result},
    generate::{Generation, Params},
    models::{self, Network, Positions, config::Config},
    ops::sample::MOST_LOGITS,
    sessions::Sessions,
    text::{ChatTemplate, Message, RenderOptions, Tokenizer},
    weights::{
        Checkpoint,
        adapter::Adapter,
        loader::{Loader, Progress},
    },
};

/// Tokens of context when the caller does not say: enough for a long chat, little memory.
pub const DEFAULT_CONTEXT: usize = 4096;

/// How to load a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Most tokens of prompt and answer together; by default [`DEFAULT_CONTEXT`], and never more than the model was made for.
    pub context_length: Option<usize>,
}

/// What runs, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Info {
    /// `model_type` of the configuration.
    pub architecture: String,
    /// The backend and its device.
    pub backend: BackendInfo,
    /// Most tokens of prompt and answer together.
    pub context_length: usize,
    /// Logits of a position.
    pub vocab_size: usize,
    /// What an encoder gives; none where a model generates text.
    pub embedding: Option<EmbeddingInfo>,
}

/// What an encoder gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EmbeddingInfo {
    /// Elements of an embedding.
    pub length: usize,
    /// Which tokens' hidden states it is made of: `mean`, `cls` or `lasttoken`.
    pub pooling: &'static str,
}

/// A loaded model, and its conversations.
pub struct Model {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) session: Session,
    pub(crate) network: Box<dyn Network>,
    tokenizer: Option<Rc<Tokenizer>>,
    template: Option<ChatTemplate>,
    card: Card,
    info: Info,
    end_tokens: BTreeSet<u32>,
    prefill_chunk: usize,
    /// What the session holds (and perhaps one token more, chosen and not yet processed).
    pub(crate) tokens: Vec<u32>,
    /// The conversations that are not in use.
    pub(crate) sessions: Sessions,
    adapters: Adapters,
    /// Counts changes of adapters and conversations: a request does not outlive one.
    revision: u64,
}

impl Model {
    /// Checks configuration and shapes, then loads the weights into `backend`.
    pub async fn load(
        checkpoint: &Checkpoint,
        mut backend: Box<dyn Backend>,
        options: LoadOptions,
        progress: Progress<'_>,
    ) -> Result<Model> {
        let config = Config(&checkpoint.config);
        let architecture = config.model_type()?.to_owned();
        let tokenizer = checkpoint.tokenizer.as_deref().map(Tokenizer::from_json).transpose()?.map(Rc::new);
        let template = ChatTemplate::from_config(&checkpoint.tokenizer_config)?;
        let end_tokens = end_tokens(checkpoint)?;
        check(checkpoint).await?;
        let context = options.context_length.unwrap_or(DEFAULT_CONTEXT);

        let loader = Loader::new(checkpoint, backend.as_mut(), context, progress);
        let targets = loader.targets();
        let network = models::load(config, loader).await?;
        backend.flush().await?;
        let context = context.min(network.context());
        if context == 0 {
            return Err(Error::InvalidInput("contextLength is 0".into()));
        }
        let session = backend.new_session(&session_spec(&*network, context))?;
        let embedding = network.pooling().map(|p| EmbeddingInfo { length: p.width(), pooling: p.name() });
        let info = Info { architecture, backend: backend.info(), context_length: context, vocab_size: network.vocab(), embedding };
        // Slow devices get few tokens at a time, so that a request can be stopped within seconds.
        let prefill_chunk = match info.backend.name {
            "cpu" => 64,
            _ if info.backend.software => 32,
            _ => 256,
        };
        Ok(Model {
            backend,
            session,
            network,
            tokenizer,
            template,
            card: checkpoint.card.clone(),
            info,
            end_tokens,
            prefill_chunk,
            tokens: Vec::new(),
            sessions: Sessions::default(),
            adapters: Adapters::new(targets),
            revision: 0,
        })
    }

    /// What is declared of the model.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// What runs where.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The tokenizer, if the checkpoint has one.
    pub fn tokenizer(&self) -> Option<&Rc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    /// Sets how many tokens of a prompt are processed at a time; logits do not depend on it.
    pub fn set_prefill_chunk(&mut self, tokens: usize) {
        self.prefill_chunk = tokens.max(1);
    }

    /// Kernel dispatches of the last step.
    pub fn dispatches(&self) -> usize {
        self.backend.dispatches()
    }

    /// Ids of `text`; `add_special` adds what the tokenizer puts around a text, such as a beginning-of-text token.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.need_tokenizer()?.encode(text, add_special)
    }

    /// The prompt of a conversation, up to the beginning of an answer. `now` is local time in seconds since 1970, for
    /// templates that print the date.
    pub fn chat_prompt(&self, messages: &[Message], now: Option<i64>) -> Result<Vec<u32>> {
        self.need_generator()?;
        if messages.is_empty() {
            return Err(Error::InvalidInput("messages is empty: a chat needs at least one message".into()));
        }
        let Some(template) = &self.template else {
            return Err(Error::InvalidInput("this model has no chat template: use a plain completion".into()));
        };
        let text = template.render(messages, RenderOptions { add_generation_prompt: true, now })?;
        // Templates write special tokens themselves, the beginning-of-text token included.
        self.encode(&text, false)
    }

    /// Adds an adapter, which acts from now on, `scale` times as much as it was trained to. `base` is the checkpoint that this
    /// model was loaded from. Forgets the conversation, as every change of adapters does: what the session holds was computed
    /// without it.
    pub async fn add_adapter(&mut self, adapter: &Adapter, name: &str, scale: f32, base: &Checkpoint) -> Result<()> {
        self.change_adapters();
        self.adapters.add(self.backend.as_mut(), adapter, name, scale, base).await
    }

    /// Adds more or less of an adapter from now on.
    pub fn set_adapter_scale(&mut self, name: &str, scale: f32) -> Result<()> {
        self.change_adapters();
        self.adapters.set_scale(self.backend.as_mut(), name, scale)
    }

    /// Takes an adapter away. Without adapters the model computes, bit for bit, what it computed before them.
    pub fn remove_adapter(&mut self, name: &str) -> Result<()> {
        self.change_adapters();
        self.adapters.remove(self.backend.as_mut(), name)
    }

    /// The adapters, in the order in which they act.
    pub fn adapters(&self) -> Vec<AdapterInfo> {
        self.adapters.list()
    }

    fn change_adapters(&mut self) {
        self.forget_all();
        self.change();
    }

    /// Starts a request.
    pub fn start(&mut self, prompt: Vec<u32>, params: Params) -> Result<Generation> {
        Generation::new(self, prompt, params)
    }

    /// Logits of every position of `ids`, a chunk at a time: `each` gets the first position and rows of `vocab_size` logits.
    /// Forgets the conversation.
    pub async fn logits(&mut self, ids: &[u32], mut each: impl FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        self.need_generator()?;
        self.check_tokens(ids)?;
        if ids.len() > self.context() {
            return Err(Error::ContextOverflow { tokens: ids.len(), context: self.context() });
        }
        self.rewind(&[], 0);
        let mut first = 0;
        // Logits of all positions at once must fit a buffer.
        let fit = self.backend.max_plane_bytes() / (4 * self.info.vocab_size);
        for chunk in ids.chunks(self.prefill_chunk().min(fit).max(1)) {
            let logits = self.step(Input::Tokens(chunk), Positions::All, None)?;
            let rows = self.backend.read(logits).await?;
            self.remember(chunk);
            each(first, &rows)?;
            first += chunk.len();
        }
        Ok(())
    }

    fn need_tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_deref().ok_or_else(|| Error::InvalidInput("this model has no tokenizer.json: only token ids can be used".into()))
    }

    // For generation.

    pub(crate) fn context(&self) -> usize {
        self.info.context_length
    }

    /// What the backend keeps of a conversation.
    pub(crate) fn session_spec(&self) -> SessionSpec {
        session_spec(&*self.network, self.context())
    }

    /// What the adapters are, in the order in which they act.
    pub(crate) fn adapter_digests(&self) -> Vec<String> {
        self.adapters.digests()
    }

    /// A request under way is over.
    pub(crate) fn change(&mut self) {
        self.revision += 1;
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(crate) fn is_end(&self, id: u32) -> bool {
        self.end_tokens.contains(&id)
    }

    pub(crate) fn check_tokens(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.info.vocab_size) {
            Some(id) => Err(Error::InvalidInput(format!("token {id} is not in the vocabulary of {}", self.info.vocab_size))),
            None => Ok(()),
        }
    }

    /// Tokens of a prefill step.
    pub(crate) fn prefill_chunk(&self) -> usize {
        self.prefill_chunk
    }

    /// Steps to have in flight: on a real device the next steps are submitted before a token is read back. A step whose
    /// sampling may fall back to the processor must be waited for.
    pub(crate) fn steps_ahead(&self, sampling: &Sampling) -> usize {
        let unfiltered = sampling.top_k == 0 && sampling.top_p >= 1.0 && sampling.min_p <= 0.0;
        let stays = (sampling.temperature <= 0.0 || unfiltered) && self.info.vocab_size <= MOST_LOGITS;
        if stays && self.info.backend.name == "gpu" && !self.info.backend.software { 3 } else { 1 }
    }

    /// Tokens that a step may process and the session forget again.
    pub(crate) fn undoes(&self) -> usize {
        if self.network.convs().is_empty() { usize::MAX } else { SPARE }
    }

    /// Records and submits a step; returns its logits.
    pub(crate) fn step(&mut self, input: Input<'_>, positions: Positions, sampling: Option<&Sampling>) -> Result<Tensor> {
        self.backend.begin(self.session, input)?;
        let logits = self.network.forward(self.backend.as_mut(), positions);
        if let Some(sampling) = sampling {
            self.backend.sample(logits, sampling);
        }
        self.backend.end()?;
        Ok(logits)
    }

    /// Waits until the device has done what was submitted.
    pub(crate) async fn wait(&mut self) -> Result<()> {
        self.backend.flush().await
    }

    pub(crate) fn remember(&mut self, ids: &[u32]) {
        self.tokens.extend_from_slice(ids);
    }

    /// After a failure nothing that the session holds can be trusted.
    pub(crate) fn forget(&mut self) {
        self.tokens.clear();
        self.settle();
    }

    /// Whether the tokenizer knows `id`: vocabularies are padded, and a draw may fall into the padding.
    pub(crate) fn has_text(&self, id: u32) -> bool {
        self.tokenizer.as_ref().is_some_and(|t| t.piece(id).is_some())
    }

    /// Cuts the session down to what it shares with `prompt`, `most` tokens at most; returns how many those are.
    pub(crate) fn rewind(&mut self, prompt: &[u32], most: usize) -> usize {
        self.settle();
        let shared = self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(most);
        self.tokens.truncate(shared);
        self.settle();
        self.tokens.len()
    }

    /// Makes session and token list agree: drops steps ahead of the list, and the list's last token if it was chosen but
    /// never processed.
    pub(crate) fn settle(&mut self) {
        self.backend.truncate(self.session, self.tokens.len());
        self.tokens.truncate(self.backend.position(self.session));
    }
}

fn session_spec(network: &dyn Network, context: usize) -> SessionSpec {
    SessionSpec { caches: network.caches(), convs: network.convs(), context, vocab: network.vocab() }
}

/// Checks that an architecture of ours finds every tensor in the right shape, and knows every one; reads no weight.
pub async fn check(checkpoint: &Checkpoint) -> Result<()> {
    models::load(Config(&checkpoint.config), Loader::check(checkpoint)).await.map(|_| ())
}

/// `eos_token_id` of `generation_config.json` and of `config.json`: a number or a list.
fn end_tokens(checkpoint: &Checkpoint) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for (file, config) in [("generation_config.json", &checkpoint.generation_config), ("config.json", &checkpoint.config)] {
        let value = config.get("eos_token_id").unwrap_or(&Value::Null);
        let list = match value {
            Value::Null => &[],
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        for id in list {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            ids.insert(id.ok_or_else(|| Error::InvalidFile(format!("{file}: eos_token_id is {value}")))?);
        }
    }
    Ok(ids)
}
