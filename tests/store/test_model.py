"""The model that other stores are compared with does itself what a store must."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.store.contract import StoreContract
from tests.store.model import ModelStore
from txgearman.store.contract import SavedJob, Store


class ModelTests(StoreContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.disk: dict[int, SavedJob] = {}
        self.starts: list[str] = []
        super().setUp()

    def make_store(self) -> Store:
        return ModelStore(self.disk, self.starts)
