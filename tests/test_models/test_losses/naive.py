"""Loops in double precision that the losses are compared with."""


def _unit(rows):
    rows = rows.double()
    return rows / rows.pow(2).sum(dim=1, keepdim=True).sqrt()


def _cosine(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def _candidates(i, batch, memory, groups, memory_groups, include_self):
    """Indices (is_memory, j) of the candidates of row i."""
    kept = [
        (False, j)
        for j in range(batch)
        if (
            include_self
            if i == j
            else (groups is None or groups[i] != groups[j])
        )
    ]
    kept += [
        (True, j)
        for j in range(memory)
        if groups is None or groups[i] != memory_groups[j]
    ]
    return kept


def naive_cmd(
    student,
    teacher,
    form,
    tau_t,
    tau_s,
    include_self,
    memory=None,
    groups=None,
):
    """CMD by two nested loops; gradients flow through torch scalars."""
    student, teacher = _unit(student), _unit(teacher)
    mem_s, mem_t, mem_g = (
        ([], [], [])
        if memory is None
        else (_unit(memory[0]), _unit(memory[1]), memory[2])
    )
    total, rows = 0.0, 0
    for i in range(len(student)):
        kept = _candidates(
            i, len(student), len(mem_t), groups, mem_g, include_self
        )
        if not kept:
            continue
        rows += 1
        a, b = [], []
        for in_memory, j in kept:
            t_j = mem_t[j] if in_memory else teacher[j]
            s_j = mem_s[j] if in_memory else student[j]
            a.append(_cosine(teacher[i], t_j) / tau_t)
            b.append(
                _cosine(student[i], s_j if form == 'within' else t_j) / tau_s
            )
        norm_a = sum(x.exp() for x in a)
        norm_b = sum(x.exp() for x in b)
        for x, y in zip(a, b, strict=True):
            total = total - x.exp() / norm_a * (y - norm_b.log())
    return total / rows


def naive_cmc(student, teacher, tau, symmetric, memory=None, groups=None):
    """CMC by two nested loops."""
    student, teacher = _unit(student), _unit(teacher)
    mem_t, mem_g = (
        ([], []) if memory is None else (_unit(memory[1]), memory[2])
    )
    total = 0.0
    for i in range(len(student)):
        positive = _cosine(student[i], teacher[i]) / tau
        norm = 0.0
        for in_memory, j in _candidates(
            i, len(student), len(mem_t), groups, mem_g, True
        ):
            t_j = mem_t[j] if in_memory else teacher[j]
            norm = norm + (_cosine(student[i], t_j) / tau).exp()
        forward = norm.log() - positive
        if symmetric:
            norm = 0.0
            for _, j in _candidates(i, len(student), 0, groups, [], True):
                norm = norm + (_cosine(student[j], teacher[i]) / tau).exp()
            forward = (forward + norm.log() - positive) / 2
        total = total + forward
    return total / len(student)
