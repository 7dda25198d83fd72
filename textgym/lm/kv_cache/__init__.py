"""KV-cache backends: keep the keys and values of N token sequences that grow, end and restart independently.

| module | content |
| --- | --- |
| `base` | the interface, `KVCacheBackend`, its input, `Step`, and the tensors, `KVStorage` |
| `packed` | the fast backend, built on transformers' `AttentionInterface`, with the attention in `attention` |
| `batched` | a backend for other models with full attention, built on transformers' `Cache` |
| `selection` | choose the fastest backend whose logits match an uncached forward, or fall back to that forward |
"""
