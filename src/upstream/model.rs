use http::Uri;

use super::{
    paths::Paths,
    scan::{Scanner, Value},
};

/// The model that a request asks for: as its body says, or its path.
pub(super) fn model_of(uri: &Uri, body: &[u8]) -> Option<String> {
    named_in(body).or_else(|| {
        let mut parts = uri.path().split('/');
        parts.find(|part| matches!(*part, "models" | "model" | "deployments"))?;
        // Gemini has the method behind a colon.
        let name = parts.next()?.split(':').next()?;
        (!name.is_empty() && name.len() <= MAX_NAME).then(|| name.to_owned())
    })
}

fn named_in(body: &[u8]) -> Option<String> {
    let mut paths = Paths::new();
    paths.add("model", 0);
    let mut model = None;
    Scanner::default().data(&paths, body, &mut |_, value: Value<'_>| {
        if let Value::Text { text, characters } = value
            && (1..=MAX_NAME as u64).contains(&characters)
            && model.is_none()
        {
            model = std::str::from_utf8(text).ok().map(str::to_owned);
        }
    });
    model
}

/// The longest name of a model: whoever asks writes it.
const MAX_NAME: usize = 128;
