"""What tests of trainings share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Threads wait for each other on a busy machine, and images this small gain nothing by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
