"""The SDKs as their users have them, with another base URL and key: plain, streaming, errors, time-outs."""

import sys

import anthropic
import openai

base, alice, bob = sys.argv[1:]
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]


def fails(kind, ask):
    try:
        ask()
    except kind as error:
        return error
    raise AssertionError(f"this was to be {kind.__name__}")


def open_ai(key, **options):
    return openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, timeout=60, **options)


def claude(key):
    return anthropic.Anthropic(base_url=base, api_key=key, max_retries=0, timeout=60)


def openai_sdk():
    client = open_ai(alice)
    ask = client.chat.completions.create
    answer = ask(model="gpt", messages=QUESTION)
    assert answer.choices[0].message.content and answer.usage.completion_tokens == 12, answer
    assert {"gpt", "claude"} <= {model.id for model in client.models.list().data}

    text, usage = "", None
    options = {"include_usage": True}
    for part in ask(model="gpt", messages=QUESTION, stream=True, stream_options=options):
        text += part.choices[0].delta.content or "" if part.choices else ""
        usage = part.usage or usage
    assert text and usage.completion_tokens == 12, (text, usage)
    raw = client.chat.completions.with_raw_response.create(model="gpt", messages=QUESTION)
    assert raw.parse().usage.completion_tokens == 12

    fails(openai.AuthenticationError, lambda: open_ai("sk-nobody").models.list())
    fails(openai.NotFoundError, lambda: ask(model="nobody", messages=QUESTION))
    fails(openai.BadRequestError, lambda: client.post("/chat/completions", cast_to=object, body=["?"]))
    quick = client.with_options(timeout=0.000_001)
    fails(openai.APITimeoutError, lambda: quick.chat.completions.create(model="gpt", messages=QUESTION))


def anthropic_sdk():
    client = claude(alice)
    message = client.messages.create(model="claude", max_tokens=64, messages=QUESTION)
    assert message.content[0].text and message.usage.output_tokens == 12, message
    with client.messages.stream(model="claude", max_tokens=64, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == last.content[0].text and last.usage.output_tokens == 12, last

    def ask(key, model="claude"):
        return claude(key).messages.create(model=model, max_tokens=64, messages=QUESTION)

    fails(anthropic.AuthenticationError, lambda: ask("sk-nobody"))
    fails(anthropic.NotFoundError, lambda: ask(alice, "nobody"))


def refusals():
    """Two an hour, whichever language they are asked in."""
    question = [{"role": "user", "content": "Bob's"}]
    client = open_ai(bob)
    for number in range(2):
        client.chat.completions.create(model="gpt", messages=question, user=str(number))
    create = client.chat.completions.create
    error = fails(openai.RateLimitError, lambda: create(model="gpt", messages=question, user="3"))
    assert int(error.response.headers["retry-after"]) > 0, error.response.headers
    ask = claude(bob).messages.create
    error = fails(
        anthropic.RateLimitError,
        lambda: ask(model="claude", max_tokens=64, messages=question),
    )
    assert int(error.response.headers["retry-after"]) > 0, error.response.headers


for run in (openai_sdk, anthropic_sdk, refusals):
    run()
    print(run.__name__, "ok")
