"""What users of the SDKs write, against a gateway: nothing is changed but the base URL and the key."""

import sys

import anthropic
import openai

gateway, key, poor_key = sys.argv[1:]
messages = [{"role": "user", "content": "Hello"}]

client = openai.OpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=0)
try:
    # The provider takes its time for the first call.
    client.with_options(timeout=1).chat.completions.create(model="gpt", messages=messages)
    raise AssertionError("it took too long")
except openai.APITimeoutError:
    pass
answer = client.chat.completions.create(model="gpt", messages=messages)
assert answer.usage.completion_tokens == 12, answer
assert answer.choices[0].message.content
assert [model.id for model in client.models.list()] == ["claude", "gpt", "gpt-secret"]
stream = client.chat.completions.create(
    model="gpt", messages=messages, stream=True, stream_options={"include_usage": True}
)
chunks = list(stream)
assert chunks[-1].usage.completion_tokens == 12, chunks[-1]
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

for attempt, error in [
    (lambda: client.chat.completions.create(model="none", messages=messages), openai.NotFoundError),
    (lambda: client.with_options(api_key="sk-x").models.list(), openai.AuthenticationError),
]:
    try:
        attempt()
    except error:
        continue
    raise AssertionError(f"there was no {error}")

poor = openai.OpenAI(base_url=f"{gateway}/v1", api_key=poor_key, max_retries=0)
poor.chat.completions.create(model="gpt", messages=messages)
poor.chat.completions.create(model="gpt", messages=messages)
try:
    poor.chat.completions.create(model="gpt", messages=messages)
    raise AssertionError("the plan has two")
except openai.RateLimitError as refusal:
    assert int(refusal.response.headers["retry-after"]) > 0
    assert refusal.type == "rate_limit_error", refusal.body

client = anthropic.Anthropic(base_url=gateway, api_key=key, max_retries=0)
answer = client.messages.create(model="claude", max_tokens=50, messages=messages)
assert (answer.usage.output_tokens, answer.stop_reason) == (12, "end_turn"), answer
with client.messages.stream(model="claude", max_tokens=50, messages=messages) as stream:
    assert "".join(stream.text_stream)
    assert stream.get_final_message().usage.output_tokens == 12
try:
    client.messages.create(model="none", max_tokens=50, messages=messages)
    raise AssertionError("there is no such model")
except anthropic.NotFoundError:
    pass
print("as they should")
