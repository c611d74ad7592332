"""Every architecture that people prune, in one table: ``python -m tests.zoo --suite torchvision``."""
