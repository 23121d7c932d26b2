"""What users of the SDKs write, against a gateway: nothing is changed but the base URL and the key."""

import sys
import urllib.request

import anthropic
import openai

gateway, provider, key, poor_key = sys.argv[1:]
messages = [{"role": "user", "content": "Hello"}]


def next_call(fault):
    """The provider's next answer is not as it should be."""
    urllib.request.urlopen(f"{provider}/next/{fault}", data=b"").read()


def raises(error, attempt):
    try:
        attempt()
    except error as raised:
        return raised
    raise AssertionError(f"there was no {error}")


# --- OpenAI ---

client = openai.OpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=0)


def ask(client, **more):
    return client.chat.completions.create(model="gpt", messages=messages, **more)


next_call("slow")
raises(openai.APITimeoutError, lambda: ask(client.with_options(timeout=1)))
answer = ask(client)
assert answer.usage.completion_tokens == 12, answer
assert answer.choices[0].message.content
assert [model.id for model in client.models.list()] == ["claude", "gpt", "gpt-secret"]
assert client.models.retrieve("gpt").id == "gpt"
raises(openai.NotFoundError, lambda: client.models.retrieve("none"))
assert client.responses.input_tokens.count(model="gpt", input="Hello").input_tokens == 7
chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
assert chunks[-1].usage.completion_tokens == 12, chunks[-1]
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

raises(
    openai.NotFoundError,
    lambda: client.chat.completions.create(model="none", messages=messages),
)
raises(openai.AuthenticationError, lambda: client.with_options(api_key="sk-x").models.list())
next_call("broken")
raises(openai.InternalServerError, lambda: ask(client))
next_call("error-in-stream")
said = []
error = raises(
    openai.APIError,
    lambda: said.extend(chunk.choices[0].delta.content for chunk in ask(client, stream=True)),
)
assert said == ["Hel"], said
assert "had a bad day" in str(error), error
next_call("cut")
raises(openai.APIError, lambda: list(ask(client, stream=True)))

# As they come: what fails once is asked again.
patient = openai.OpenAI(base_url=f"{gateway}/v1", api_key=key)
next_call("broken")
assert ask(patient).usage.completion_tokens == 12
next_call("overloaded")
assert ask(patient).usage.completion_tokens == 12

poor = openai.OpenAI(base_url=f"{gateway}/v1", api_key=poor_key, max_retries=0)
ask(poor)
ask(poor)
refusal = raises(openai.RateLimitError, lambda: ask(poor))
assert int(refusal.response.headers["retry-after"]) > 0
assert refusal.type == "rate_limit_error", refusal.body

# --- Anthropic ---

client = anthropic.Anthropic(base_url=gateway, api_key=key, max_retries=0)


def ask(client, **more):
    return client.messages.create(model="claude", max_tokens=50, messages=messages, **more)


next_call("slow")
raises(anthropic.APITimeoutError, lambda: ask(client.with_options(timeout=1)))
answer = ask(client)
assert (answer.usage.output_tokens, answer.stop_reason) == (12, "end_turn"), answer
with client.messages.stream(model="claude", max_tokens=50, messages=messages) as stream:
    assert "".join(stream.text_stream)
    assert stream.get_final_message().usage.output_tokens == 12

assert client.messages.count_tokens(model="claude", messages=messages).input_tokens == 7
assert [model.id for model in client.models.list()] == ["claude", "gpt", "gpt-secret"]
assert client.models.retrieve("claude").type == "model"
raises(anthropic.NotFoundError, lambda: client.models.retrieve("none"))

raises(
    anthropic.NotFoundError,
    lambda: client.messages.create(model="none", max_tokens=50, messages=messages),
)
raises(anthropic.AuthenticationError, lambda: ask(client.with_options(api_key="sk-x")))
next_call("broken")
raises(anthropic.InternalServerError, lambda: ask(client))
next_call("error-in-stream")
said = []


def read():
    with client.messages.stream(model="claude", max_tokens=50, messages=messages) as stream:
        said.extend(stream.text_stream)


error = raises(anthropic.APIStatusError, read)
assert said == ["Hel"], said
assert error.body["error"]["type"] == "overloaded_error", error.body

patient = anthropic.Anthropic(base_url=gateway, api_key=key)
next_call("broken")
assert ask(patient).usage.output_tokens == 12
next_call("overloaded")
assert ask(patient).usage.output_tokens == 12

poor = anthropic.Anthropic(base_url=gateway, api_key=poor_key, max_retries=0)
refusal = raises(anthropic.RateLimitError, lambda: ask(poor))
assert int(refusal.response.headers["retry-after"]) > 0
assert refusal.body["error"]["type"] == "rate_limit_error", refusal.body

print("as they should")
