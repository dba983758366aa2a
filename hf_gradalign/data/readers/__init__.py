"""Readers of corpora without an official layout: the Hub, tables, folders and archives."""

from hf_gradalign.data.readers.source import demo_corpus_files, read_source

__all__ = ["demo_corpus_files", "read_source"]
