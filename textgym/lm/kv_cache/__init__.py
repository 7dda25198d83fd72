"""KV-cache backends: keep the keys and values of N token sequences that grow, end and restart independently.

| module | content |
| --- | --- |
| `base` | the interface, `KVCacheBackend`, and its input, `Step` |
| `packed` | the fast backend, built on transformers' `AttentionInterface`, with the attention in `attention` |
| `batched` | a backend for other models with full attention, built on transformers' `Cache` |
| `selection` | choose the fastest backend whose logits match an uncached forward, or fall back to that forward |
| `storage` | the tensors that the first two share, and the cache of prompts |
"""
