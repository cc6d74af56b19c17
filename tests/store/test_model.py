"""The model that other stores are compared with does itself what a store must."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.store.contract import LEASE, StoreContract
from tests.store.model import ModelDatabase, ModelStore
from tests.store.sharing import SharedContract
from txgearman.store.contract import Store


class ModelTests(StoreContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.database = ModelDatabase()
        super().setUp()

    def make_store(self) -> Store:
        return ModelStore(self.database)


class SharedModelTests(SharedContract, SynchronousTestCase):
    def setUp(self) -> None:
        self.database = ModelDatabase()

    def opened(self, name: str, lease: float = LEASE) -> Store:
        store = ModelStore(self.database, shared=True)
        store.open(name, lease)
        return store
