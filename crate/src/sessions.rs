//! Several conversations with one model: each keeps its keys and values, so going on with one computes only what is new in it.
//! [`saved`] brings them into a store and back.

use std::collections::BTreeMap;

use crate::{
    backend::{Backend, Cache, Conv, Input, Session, SessionSpec},
    engine::Model,
    error::{Error, Result},
    models::Positions,
};

pub mod saved;

/// Positions that are copied at a time; what is saved is laid out so.
const CHUNK: usize = 256;

/// The conversation that a model has from the beginning.
pub const FIRST: u32 = 0;

/// The model's conversations but for the one in use.
#[derive(Default)]
pub(crate) struct Sessions {
    parked: BTreeMap<u32, Parked>,
    in_use: u32,
    /// How many there ever were besides the first.
    opened: u32,
}

/// A conversation that is not in use.
struct Parked {
    session: Session,
    tokens: Vec<u32>,
}

/// Positions of a conversation, a part at a time.
fn chunks(positions: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..positions).step_by(CHUNK).map(move |start| start..positions.min(start + CHUNK))
}

impl Model {
    /// Opens another, empty conversation; its number is not given out again.
    pub fn open_session(&mut self) -> Result<u32> {
        let session = self.backend.new_session(&self.session_spec())?;
        Ok(self.park(Parked { session, tokens: Vec::new() }))
    }

    /// Requests belong to conversation `id` from now on. One that is under way in another ends.
    pub fn use_session(&mut self, id: u32) -> Result<()> {
        if id == self.sessions.in_use {
            return Ok(());
        }
        let Some(next) = self.sessions.parked.remove(&id) else { return Err(unknown(id)) };
        self.settle();
        self.change();
        let left = Parked {
            session: std::mem::replace(&mut self.session, next.session),
            tokens: std::mem::replace(&mut self.tokens, next.tokens),
        };
        self.sessions.parked.insert(std::mem::replace(&mut self.sessions.in_use, id), left);
        Ok(())
    }

    /// The tokens that conversation `id` holds.
    pub fn session_tokens(&mut self, id: u32) -> Result<&[u32]> {
        if id == self.sessions.in_use {
            self.settle();
            return Ok(&self.tokens);
        }
        self.sessions.parked.get(&id).map(|parked| parked.tokens.as_slice()).ok_or_else(|| unknown(id))
    }

    /// A new conversation that holds what conversation `id` holds; from here on they know nothing of each other.
    pub async fn fork_session(&mut self, id: u32) -> Result<u32> {
        let (from, tokens) = self.session(id)?;
        let (spec, to) = (self.session_spec(), self.backend.new_session(&self.session_spec())?);
        match copy(self.backend.as_mut(), &spec, tokens.len(), from, to).await {
            Ok(()) => Ok(self.park(Parked { session: to, tokens })),
            Err(error) => {
                self.backend.drop_session(to);
                Err(error)
            }
        }
    }

    /// Forgets all but the first `tokens` tokens of conversation `id`; returns how many are left: fewer where a convolution's state
    /// does not go back so far.
    pub fn truncate_session(&mut self, id: u32, tokens: usize) -> Result<usize> {
        if id == self.sessions.in_use {
            self.change();
            self.tokens.truncate(tokens);
            self.settle();
            return Ok(self.tokens.len());
        }
        let parked = self.sessions.parked.get_mut(&id).ok_or_else(|| unknown(id))?;
        self.backend.truncate(parked.session, tokens);
        parked.tokens.truncate(self.backend.position(parked.session));
        Ok(parked.tokens.len())
    }

    /// Forgets conversation `id` and frees its memory. The first one stays, empty.
    pub fn close_session(&mut self, id: u32) -> Result<()> {
        if id == FIRST {
            return self.truncate_session(FIRST, 0).map(drop);
        }
        if id == self.sessions.in_use {
            self.use_session(FIRST)?;
        }
        let parked = self.sessions.parked.remove(&id).ok_or_else(|| unknown(id))?;
        self.backend.drop_session(parked.session);
        Ok(())
    }

    /// Logits of the token after `ids`. What the conversation in use shares with them is not computed again; it holds `ids` then.
    pub async fn next_logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.need_generator()?;
        self.check_tokens(ids)?;
        let Some(most) = ids.len().checked_sub(1) else { return Err(Error::InvalidInput("no tokens: nothing comes next".into())) };
        if ids.len() > self.context() {
            return Err(Error::ContextOverflow { tokens: ids.len(), context: self.context() });
        }
        let (reused, mut logits) = (self.rewind(ids, most), Vec::new());
        for chunk in ids[reused..].chunks(self.prefill_chunk()) {
            let tensor = self.step(Input::Tokens(chunk), Positions::Last, None)?;
            logits = self.backend.read(tensor).await?;
            self.remember(chunk);
        }
        Ok(logits)
    }

    /// After a change of the weights no conversation is what the model would have computed.
    pub(crate) fn forget_all(&mut self) {
        self.forget();
        for parked in self.sessions.parked.values_mut() {
            parked.tokens.clear();
            self.backend.truncate(parked.session, 0);
        }
    }

    fn park(&mut self, parked: Parked) -> u32 {
        self.sessions.opened += 1;
        self.sessions.parked.insert(self.sessions.opened, parked);
        self.sessions.opened
    }

    /// The backend's handle of conversation `id`, and its tokens.
    fn session(&mut self, id: u32) -> Result<(Session, Vec<u32>)> {
        let tokens = self.session_tokens(id)?.to_vec();
        let session = self.sessions.parked.get(&id).map_or(self.session, |parked| parked.session);
        Ok((session, tokens))
    }
}

/// Copies the state of `positions` tokens into an empty session.
async fn copy(backend: &mut dyn Backend, spec: &SessionSpec, positions: usize, from: Session, to: Session) -> Result<()> {
    backend.resume(to, positions)?;
    for cache in (0..spec.caches.len() as u32).map(Cache) {
        for range in chunks(positions) {
            let [keys, values] = backend.read_cache(from, cache, range.clone()).await?;
            backend.write_cache(to, cache, range.start, &keys, &values);
        }
    }
    for conv in (0..spec.convs.len() as u32).map(Conv) {
        let rows = backend.read_conv(from, conv).await?;
        backend.write_conv(to, conv, &rows);
    }
    backend.flush().await
}

fn unknown(id: u32) -> Error {
    Error::NotFound(format!("no session has the number {id}: it was closed"))
}
