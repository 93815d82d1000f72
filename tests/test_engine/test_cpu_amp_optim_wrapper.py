import torch
from torch import nn

from mmcmcd.engine import CPUAmpOptimWrapper
from mmcmcd.registry import OPTIM_WRAPPERS


def test_forward_runs_in_bfloat16_and_weights_stay_float32():
    net = nn.Linear(4, 2)
    before = net.weight.detach().clone()
    wrapper = OPTIM_WRAPPERS.build(
        dict(
            type='mmcmcd.CPUAmpOptimWrapper',
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        )
    )
    assert isinstance(wrapper, CPUAmpOptimWrapper)
    with wrapper.optim_context(net):
        output = net(torch.ones(3, 4))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert net.weight.dtype == torch.float32
    # The gradient of the sum over 3 rows of ones is 3.
    torch.testing.assert_close(net.weight, before - 0.3)
    assert net(torch.ones(3, 4)).dtype == torch.float32
