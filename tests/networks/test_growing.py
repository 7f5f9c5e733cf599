"""A masked perceptron that learns its inputs one after the other gives the outputs of a whole pass."""

from __future__ import annotations

import pytest
import torch

from pushforward.networks import Growing, MaskedPerceptron


@pytest.mark.parametrize("context_features", [0, 2])
@pytest.mark.parametrize("hidden", [(7,), (12, 9), (3, 20, 5)])
def test_growing_equals_a_whole_pass(context_features: int, hidden: tuple[int, ...]) -> None:
    torch.manual_seed(len(hidden) + context_features)
    order, inputs, outputs = [2, 0, 3, 1], [0, 1, 1, 2, 3, 3, 3], [0, 0, 1, 2, 2, 2, 3]
    network = MaskedPerceptron(
        order, inputs=inputs, outputs=outputs, context_features=context_features, hidden=hidden
    ).double()
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter)
    x = torch.randn(5, len(inputs), dtype=torch.float64)
    context = torch.randn(5, context_features, dtype=torch.float64) if context_features else None
    with torch.no_grad():
        whole = network(x, context)
        growing = Growing(network, 5, context)
        for position in range(len(order)):
            places = network.outputs_at(position)
            torch.testing.assert_close(growing.outputs(position), whole[:, places])
            growing.learn(position, x[:, network.inputs_at(position)])


def test_an_output_sees_the_inputs_of_elements_before_its_own_alone() -> None:
    torch.manual_seed(0)
    order, inputs, outputs = [1, 2, 0], [0, 1, 1, 2], [0, 0, 1, 2]
    network = MaskedPerceptron(order, inputs=inputs, outputs=outputs, hidden=(30, 30)).double()
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter).abs()  # so that no path dies in a rectifier
    jacobian = torch.autograd.functional.jacobian(network, torch.ones(4, dtype=torch.float64))
    before = torch.tensor([[order[i] < order[o] for i in inputs] for o in outputs])
    assert torch.equal(jacobian != 0, before)
