"""Scripts in the manner of vLLM's offline examples, which run with the import changed."""

from __future__ import annotations

import pytest

import framework

SCRIPTS = {
    "basic": """
prompts = ["Hello, my name is", "The capital of France is", "The future of AI is"]
sampling_params = SamplingParams(temperature=0.8, top_p=0.95)
llm = LLM(model="tiny")
outputs = llm.generate(prompts, sampling_params)
for output in outputs:
    print(f"Prompt: {output.prompt!r}, Generated text: {output.outputs[0].text!r}")
assert [output.prompt for output in outputs] == prompts
assert all(output.finished and output.outputs[0].finish_reason in ("stop", "length") for output in outputs)
""",
    "engine arguments": """
llm = LLM(
    model="tiny", tokenizer=None, load_format="dummy", tensor_parallel_size=1, gpu_memory_utilization=0.5,
    enforce_eager=True, dtype="float", kv_cache_dtype="auto", max_model_len=128, max_num_seqs=4,
    max_num_batched_tokens=64, enable_chunked_prefill=True, trust_remote_code=True, seed=7, swap_space=0,
)
(output,) = llm.generate("Hello", SamplingParams(max_tokens=4, ignore_eos=True))
assert len(output.outputs[0].token_ids) == 4
assert llm.cfg.executor.dtype == "float32" and llm.cfg.scheduler.name == "chunked_prefill"
""",
    "chat": """
llm = LLM(model="tiny", max_model_len=512)
conversation = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]},
]
outputs = llm.chat(conversation, SamplingParams(temperature=0.5, max_tokens=4), use_tqdm=False)
assert outputs[0].prompt.endswith("Hello there<|im_end|>\\n<|im_start|>assistant\\n")
outputs = llm.chat([conversation] * 3, SamplingParams(max_tokens=4), use_tqdm=False, add_generation_prompt=False)
assert len(outputs) == 3 and outputs[0].prompt.endswith("<|im_end|>\\n")
""",
    "a template by hand": """
llm = LLM("tiny", max_model_len=256)
tokenizer = llm.get_tokenizer()
messages = [{"role": "user", "content": "What is 1 + 1?"}]
text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
by_hand = llm.generate([text], SamplingParams(temperature=0, max_tokens=6))[0]
assert by_hand.prompt == text
assert by_hand.outputs[0].text == llm.chat(messages, SamplingParams(temperature=0, max_tokens=6))[0].outputs[0].text
""",
    "tools and template arguments": """
llm = LLM("tiny", max_model_len=512)
template = "{{ tools[0].function.name }} {{ enable_thinking }} {{ messages[0].content }}"
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
(output,) = llm.chat(
    [{"role": "user", "content": "Is it raining?"}], SamplingParams(max_tokens=2), tools=tools,
    chat_template=template, chat_template_kwargs={"enable_thinking": False},
)
assert output.prompt == "get_weather False Is it raining?"
""",
    "prefix caching": """
prefix = "You are an expert school principal. " * 4
prompts = [prefix + text for text in ("Write a letter", "Plan a day", "Name the rules")]
params = SamplingParams(temperature=0.0, max_tokens=8)
regular = LLM(model="tiny", enable_prefix_caching=False).generate(prompts, params)
cached_llm = LLM(model="tiny", enable_prefix_caching=True)
cached_llm.generate(prompts[0], params)
cached = cached_llm.generate(prompts, params)
assert [o.outputs[0].text for o in cached] == [o.outputs[0].text for o in regular]
assert cached[0].num_cached_tokens > 0 and regular[0].num_cached_tokens == 0
""",
    "several answers": """
llm = LLM("tiny", max_model_len=64)
params = SamplingParams(n=4, temperature=1.0, seed=11, max_tokens=6, logprobs=0, ignore_eos=True)
(output,) = llm.generate("Once upon a time", params)
assert [answer.index for answer in output.outputs] == [0, 1, 2, 3]
assert len({tuple(answer.token_ids) for answer in output.outputs}) == 4
best = max(output.outputs, key=lambda answer: answer.cumulative_logprob)
print(best.text, best.cumulative_logprob)
again = llm.generate("Once upon a time", SamplingParams(temperature=1.0, seed=13, max_tokens=6, ignore_eos=True))
assert again[0].outputs[0].token_ids == output.outputs[2].token_ids
""",
    "stops": """
llm = LLM("tiny", max_model_len=64)
free = llm.generate("Stop", SamplingParams(temperature=0, max_tokens=16, ignore_eos=True))[0].outputs[0]
stop = free.text[5:7]
answer = llm.generate("Stop", SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, stop=stop))[0].outputs[0]
assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)
assert answer.text == free.text[: free.text.index(stop)]
params = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, stop=[stop], include_stop_str_in_output=True)
assert llm.generate("Stop", params)[0].outputs[0].text == free.text[: free.text.index(stop) + len(stop)]
""",
    "log-probabilities": """
llm = LLM("tiny", max_model_len=64)
(output,) = llm.generate("Log", SamplingParams(temperature=0.8, max_tokens=5, ignore_eos=True, logprobs=3))
answer = output.outputs[0]
for token_id, position in zip(answer.token_ids, answer.logprobs):
    assert 3 <= len(position) <= 4
    assert sorted(one.rank for one in position.values() if one.rank) == [1, 2, 3]
    print({one.decoded_token: one.logprob for one in position.values()})
assert abs(answer.cumulative_logprob - sum(p[t].logprob for t, p in zip(answer.token_ids, answer.logprobs))) < 1e-6
""",
    "token ids in every form": """
import numpy as np
import torch
llm = LLM("tiny", max_model_len=64)
ids = [72, 105, 33]
params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
want = llm.generate(ids, params)[0]
forms = [
    [ids], np.array(ids), torch.tensor(ids), np.array([ids]), torch.tensor([ids]), [np.array(ids)],
    {"prompt_token_ids": ids},
    [{"prompt_token_ids": np.array(ids)}], {"prompt": "see there", "prompt_token_ids": ids}, list(np.array(ids)),
    list(torch.tensor(ids)), (tuple(ids),),
]
for form in forms:
    (output,) = llm.generate(form, params)
    assert output.prompt_token_ids == ids and output.outputs[0].token_ids == want.outputs[0].token_ids, form
assert llm.generate([{"prompt": "Hi"}, "Hi"], params)[0].prompt == "Hi"
""",
    "metrics": """
llm = LLM("tiny", max_model_len=64)
a, b = llm.generate(["one", "two"], [SamplingParams(max_tokens=3, ignore_eos=True), SamplingParams(max_tokens=None)])
assert a.request_id != b.request_id and isinstance(a.request_id, str)
assert a.metrics.num_output_tokens == 3 and a.metrics.first_token_s <= a.metrics.finish_s
assert b.outputs[0].finish_reason == "stop" or len(b.outputs[0].token_ids) == 64 - len(b.prompt_token_ids)
""",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_runs_with_the_import_changed(name: str) -> None:
    opened = []

    def llm(*arguments: object, **keywords: object) -> framework.LLM:
        opened.append(framework.LLM(*arguments, **keywords))  # type: ignore[arg-type]
        return opened[-1]

    try:
        exec(SCRIPTS[name], {"LLM": llm, "SamplingParams": framework.SamplingParams})  # noqa: S102
    finally:
        for one in opened:
            one.close()
