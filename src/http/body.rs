/// Makes the bodies of refusals.
///
/// [`ProblemBody`], the default, serves every body that can be made of a `String`: those of axum,
/// reqwest and `http_body_util::Full`, and `String` itself. [`EmptyBody`] serves every body that
/// has a default, tonic's too. Any other is made by a closure `|text: String| -> B`, which is given
/// an empty text where the answer has no body: its result must then say `is_end_stream`.
#[diagnostic::on_unimplemented(
    message = "a refusal cannot be made as a `{B}`",
    note = "where the body has only a default, as tonic's, write `TooManyRequests::new().empty_body()`",
    note = "any other body is made by `TooManyRequests::new().body(|text: String| ..)`"
)]
pub trait MakeBody<B> {
    /// Whether a text given to [`of_text`](Self::of_text) is kept. If not, none is written.
    const HAS_TEXT: bool = true;

    /// The body that is `text`.
    fn of_text(&self, text: String) -> B;

    /// The body that has nothing.
    fn empty(&self) -> B;
}

/// Explains a refusal in its body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ProblemBody;

impl<B: Default + From<String>> MakeBody<B> for ProblemBody {
    fn of_text(&self, text: String) -> B {
        text.into()
    }

    fn empty(&self) -> B {
        B::default()
    }
}

/// Leaves the body of a refusal empty: its status and fields say all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct EmptyBody;

impl<B: Default> MakeBody<B> for EmptyBody {
    const HAS_TEXT: bool = false;

    fn of_text(&self, _: String) -> B {
        B::default()
    }

    fn empty(&self) -> B {
        B::default()
    }
}

impl<B, F: Fn(String) -> B> MakeBody<B> for F {
    fn of_text(&self, text: String) -> B {
        self(text)
    }

    fn empty(&self) -> B {
        self(String::new())
    }
}
