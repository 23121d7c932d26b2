"""What users of the SDK write, against the proxy: nothing is changed but the base URL."""

import asyncio
import sys

import openai

client = openai.AsyncOpenAI(base_url=f"{sys.argv[1]}v1", api_key="none", max_retries=0)
messages = [{"role": "user", "content": "Hello"}]


async def main():
    asks = [client.chat.completions.create(model="m", messages=messages) for _ in range(6)]
    for answer in await asyncio.gather(*asks):
        assert answer.usage.completion_tokens == 12, answer
    stream = await client.chat.completions.create(
        model="m", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage.completion_tokens == 12, chunks[-1]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


asyncio.run(main())
print("as they should")
