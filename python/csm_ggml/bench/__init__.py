"""Measuring the engine: what `csm-ggml bench` runs, and what benchmarks/ compares others with.

A configuration (a model file and a batch size) is measured in processes of its own, one at a time
and several times in turns with the others, so that each has its own peak of memory and none gets
the quiet minutes of a shared machine for itself.
"""
