from mmengine.model import is_model_wrapper


def unwrapped_model(runner):
    """Return a runner's model without what distributes it.

    Args:
        runner (Runner): The runner.

    Returns:
        nn.Module: The model itself.
    """
    model = runner.model
    return model.module if is_model_wrapper(model) else model
