from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from securefl import training, vector
from securefl.data import Dataset
from securefl.errors import BadInput, DataUnavailable, TrainingFailed, UnsupportedModel
from securefl.llm import adapters
from securefl.llm.adapters import Adapted, Lora
from securefl.llm.pooled import HEAD, pooled
from securefl.objective import IGNORED, losses
from securefl.plan import LocalOptimizer
from securefl.privacy.mechanism import DPSGD, SGD
from securefl.training import private
from securefl.training.batches import Batch
from tests.securefl.llm import tiny
from tests.securefl.llm.tiny import PAD, VOCABULARY

# As training does: torch says so wherever hooks meet records that need no gradient, and nothing is lost.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

LORA = Lora(rank=2, scale=4)
POOLED = 4  # classes of the classifier that pools
Sources = dict[str, str]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("bases")
    makers: dict[str, Callable[[Path], str]] = {"gpt2": tiny.gpt2, "llama": tiny.llama, "bert": tiny.bert}
    found = {name: make(folder / name) for name, make in makers.items()}
    return found | {"pooled": found["bert"]}


def built(source: str, seed: int = 0, classes: int = 0) -> Adapted:
    def factory() -> nn.Module:
        if classes == POOLED:
            return pooled(source, classes, LORA, PAD)
        if classes:
            return adapters.classifier(source, classes, LORA, PAD)
        return adapters.causal(source, LORA, PAD)

    module = vector.build(factory, seed)
    assert isinstance(module, Adapted)
    return module


def moved(module: Adapted, seed: int = 1) -> Adapted:
    """The same with every trained parameter somewhere: at the start B, and so the gradient of A, is zero."""
    start = vector.flatten(module)
    vector.load(module, start + np.random.RandomState(seed).normal(0, 0.3, len(start)).astype(np.float32))
    return module


def sequences(count: int = 5, length: int = 7, seed: int = 0) -> Dataset:
    """Of several lengths, filled up with padding; each token's label is the next one."""
    drawn = np.random.RandomState(seed)
    tokens = drawn.randint(0, VOCABULARY - 1, (count, length + 1))
    for row in range(count):
        tokens[row, length + 1 - row % 3 :] = PAD
    labels = np.where(tokens[:, 1:] == PAD, IGNORED, tokens[:, 1:])
    return Dataset(tokens[:, :-1], labels)


def blocks(people: int = 4) -> Dataset:
    whole = sequences(3 * people, 6)
    return Dataset(whole.features.reshape(people, 3, 6), whole.labels.reshape(people, 18))


def classified() -> Dataset:
    return Dataset(sequences().features, np.array([0, 1, 2, 0, 1]))


def batch(data: Dataset) -> Batch:
    return Batch(torch.from_numpy(data.features), torch.from_numpy(data.labels))


CASES = {
    "gpt2": (0, sequences),
    "llama": (0, sequences),
    "bert": (3, classified),
    "pooled": (POOLED, classified),
}


@pytest.mark.parametrize("name", CASES)
def test_adapters_and_heads_are_all_that_is_trained(sources: Sources, name: str) -> None:
    module = built(sources[name], classes=CASES[name][0])
    names = [key for key, _ in private.trainable(module)]
    assert names and all("lora_" in key or "classifier" in key or "head" in key for key in names)
    assert set(module.state_dict()) == set(names)
    training.check(module)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_each_records_gradient_is_that_of_the_record_alone(sources: Sources, name: str, mode: private.Mode) -> None:
    classes, data = CASES[name]
    _require_single_gradients(moved(built(sources[name], classes=classes)), data(), mode)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_gradient_of_a_person_is_that_of_all_the_persons_sequences(sources: Sources, name: str) -> None:
    _require_single_gradients(moved(built(sources[name])), blocks(), "hooks")


def _require_single_gradients(module: Adapted, data: Dataset, mode: private.Mode) -> None:
    found = private.Recorded(copy.deepcopy(module).train(), mode).gradients(batch(data))
    for row in range(len(data)):
        one = Batch(*(part[row : row + 1] for part in batch(data)))
        weights = torch.eye(len(data), dtype=torch.float64)[row]
        alone = copy.deepcopy(module).train()
        losses(alone(one.features), one.labels).sum().backward()
        for gradients, (key, parameter) in zip(found, private.trainable(alone), strict=True):
            assert parameter.grad is not None
            total = torch.zeros(gradients.size, dtype=torch.float64)
            gradients.add_weighted(weights, total)
            torch.testing.assert_close(total.float(), parameter.grad.flatten(), rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_sequences_of_a_person_do_not_see_each_other(sources: Sources, name: str) -> None:
    module, data = moved(built(sources[name])).eval(), blocks()
    tokens = torch.from_numpy(data.features)
    with torch.no_grad():
        together, apart = module(tokens), module(tokens.flatten(0, 1))
    counted = tokens.flatten() != PAD
    torch.testing.assert_close(
        together.reshape(-1, VOCABULARY)[counted], apart.reshape(-1, VOCABULARY)[counted], rtol=1e-4, atol=1e-5
    )


def test_a_classifier_refuses_several_sequences_a_record(sources: Sources) -> None:
    with pytest.raises(UnsupportedModel, match="one sequence a record"):
        built(sources["bert"], classes=3)(torch.zeros(2, 3, 6, dtype=torch.int64))


@pytest.mark.parametrize("name", CASES)
def test_padding_changes_nothing(sources: Sources, name: str) -> None:
    module = moved(built(sources[name], classes=CASES[name][0])).eval()
    tokens = torch.from_numpy(sequences(1, 7).features)
    longer = nn.functional.pad(tokens, (0, 5), value=PAD)
    with torch.no_grad():
        short, filled = module(tokens), module(longer)
    torch.testing.assert_close(short, filled if short.ndim == 2 else filled[:, :7], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_row_of_nothing_but_padding_gives_numbers(sources: Sources, name: str) -> None:
    module = built(sources[name], classes=CASES[name][0])
    assert module(torch.full((2, 6), PAD)).isfinite().all()
    if not CASES[name][0]:
        assert module(torch.full((2, 3, 6), PAD)).isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_the_plans_seed_decides_where_adapters_start(sources: Sources, name: str) -> None:
    classes = CASES[name][0]
    one, same, other = (built(sources[name], seed, classes) for seed in (3, 3, 4))
    assert np.array_equal(vector.flatten(one), vector.flatten(same))
    assert not np.array_equal(vector.flatten(one), vector.flatten(other))
    assert all(not parameter.any() for key, parameter in one.named_parameters() if "lora_B" in key)


def test_a_head_that_the_source_lacks_starts_alike(sources: Sources) -> None:
    built(sources["gpt2"], 8, 5)  # loads the base, under another seed
    one, same = built(sources["gpt2"], 7, 5), built(sources["gpt2"], 7, 5)
    assert vector.flatten(one).any()
    assert np.array_equal(vector.flatten(one), vector.flatten(same))


def test_another_base_is_another_architecture(sources: Sources, tmp_path: Path) -> None:
    other = tiny.gpt2(tmp_path / "other", seed=1)
    assert vector.architecture(built(sources["gpt2"])) != vector.architecture(built(other))
    assert vector.architecture(built(sources["gpt2"])) == vector.architecture(built(sources["gpt2"], seed=9))


def test_clients_share_one_base_in_memory(sources: Sources) -> None:
    one = built(sources["gpt2"])
    for other in (built(sources["gpt2"]), copy.deepcopy(one)):
        for (key, mine), (_, theirs) in zip(one.named_parameters(), other.named_parameters(), strict=True):
            assert (mine.data_ptr() == theirs.data_ptr()) is not mine.requires_grad, key


def test_moving_a_copy_leaves_the_others_base(sources: Sources) -> None:
    one = built(sources["gpt2"])
    copy.deepcopy(one).to(torch.float64)
    assert {parameter.dtype for parameter in one.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in built(sources["gpt2"]).parameters()} == {torch.float32}


def test_dropout_is_off(sources: Sources) -> None:
    module = moved(built(sources["bert"], classes=3)).train()
    tokens = torch.from_numpy(sequences().features)
    assert torch.equal(module(tokens), module(tokens))


def test_dropout_that_is_a_number_and_layers_that_are_left_out_are_off(tmp_path: Path) -> None:
    from transformers import BartForCausalLM

    module = moved(built(tiny.bart(tmp_path))).train()
    rows = torch.from_numpy(sequences().features)
    with torch.no_grad():
        said = [module(rows) for _ in range(8)]
        assert all(torch.equal(one, said[0]) for one in said)
        as_it_came = BartForCausalLM.from_pretrained(tmp_path).train()
        said = [as_it_came(input_ids=rows, use_cache=False).logits for _ in range(2)]
        assert not torch.equal(*said)


def test_a_base_in_bfloat16_has_adapters_in_float32(sources: Sources) -> None:
    module = vector.build(lambda: adapters.causal(sources["gpt2"], LORA, PAD, "bfloat16"), 0)
    kinds = {parameter.requires_grad: parameter.dtype for parameter in module.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    update = training.train(module, sequences(), DPSGD(1.0, 1.0, 1, 1.0), LocalOptimizer(0.1))
    assert update.any() and module(torch.zeros(1, 4, dtype=torch.int64)).dtype == torch.float32


@pytest.mark.parametrize("data", [sequences, blocks])
@pytest.mark.parametrize("mechanism", [SGD(1.0, 3), DPSGD(0.5, 1.0, 3, 1.0)])
def test_training_moves_adapters_and_what_the_model_says(
    sources: Sources, mechanism: SGD | DPSGD, data: Callable[[], Dataset]
) -> None:
    module, told = built(sources["gpt2"]), list[str]()
    before = vector.flatten(module)
    update = training.train(module, data(), mechanism, LocalOptimizer(0.5), tell=told.append)
    module.check_moved(before, before + update)
    assert not told and np.array_equal(vector.flatten(module), before)


def test_training_that_moves_nothing_is_noticed(sources: Sources) -> None:
    module = built(sources["gpt2"])
    start = vector.flatten(module)
    with pytest.raises(TrainingFailed, match="no adapter moved"):
        module.check_moved(start, start)


def test_adapters_that_the_model_does_not_compute_with_are_noticed(sources: Sources) -> None:
    module = built(sources["gpt2"])
    start = vector.flatten(module)
    module.peft.base_model.disable_adapter_layers()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_" in name)
    with pytest.raises(TrainingFailed, match="what the model says did not"):
        module.check_moved(start, start + 1)


@pytest.mark.attack("adapters that train nothing")
def test_training_adapters_that_are_not_the_models_is_refused_before_a_record_is_used(sources: Sources) -> None:
    """The optimizer has one adapter, the model computes with another: the noise moves what nobody uses."""

    class Replaced(Adapted):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return untouched(tokens) + 0 * super().forward(tokens)

    untouched = built(sources["gpt2"])
    for parameter in untouched.parameters():
        parameter.requires_grad_(False)
    module = built(sources["gpt2"])
    module.__class__ = Replaced
    with pytest.raises(TrainingFailed, match="trains nothing"):
        training.train(module, sequences(), DPSGD(1.0, 1.0, 1, 1.0), LocalOptimizer(0.1))


def test_peft_loads_the_adapters_without_us(sources: Sources, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from securefl.llm.base import quiet

    for name, door in (("llama", AutoModelForCausalLM), ("bert", AutoModelForSequenceClassification)):
        module = moved(built(sources[name], classes=CASES[name][0])).eval()
        folder = tmp_path / name
        module.save_adapters(folder)
        with quiet():
            loaded = PeftModel.from_pretrained(door.from_pretrained(sources[name]), str(folder)).eval()
        tokens = torch.from_numpy(sequences(3, 5).features) % PAD
        with torch.no_grad():
            torch.testing.assert_close(loaded(input_ids=tokens).logits, module(tokens), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="rank 0"):
        Lora(rank=0)
    with pytest.raises(BadInput, match="pad token 40"):
        adapters.causal(sources["gpt2"], LORA, pad=40)
    with pytest.raises(BadInput, match="no adapters fit"):
        adapters.causal(sources["gpt2"], Lora(layers=("nowhere",)), PAD)
    with pytest.raises(DataUnavailable, match="holds no model"):
        adapters.causal(str(tmp_path), LORA)


def test_a_head_that_peft_does_not_know_lies_beside_the_adapters(sources: Sources, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    module = built(sources["pooled"], classes=POOLED)
    module.save_adapters(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", HEAD}
    assert load_file(tmp_path / HEAD)["weight"].shape == (POOLED, 16)
