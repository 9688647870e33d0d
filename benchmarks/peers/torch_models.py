"""DeepFM and DIN in plain PyTorch: our networks written down once more, and a loop by hand."""

import itertools

import common
import torch
from torch import nn
from torch.nn import functional


class Fields(nn.Module):
    """A table for each category; the vector of a history is the mean of its things' vectors."""

    def __init__(self, clicks, dim):
        super().__init__()
        self.clicks = clicks
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(size, dim) for name, size in clicks.of("category")}
        )
        for table in self.tables.values():
            nn.init.uniform_(table.weight, -0.05, 0.05)

    def forward(self, batch):
        found = [self.tables[name](batch[name]) for name, _ in self.clicks.of("category")]
        for name, item, _, _ in self.clicks.of("history"):
            mask = (batch[name] > 0).float()[..., None]
            total = (self.tables[item](batch[name]) * mask).sum(1)
            found.append(total / mask.sum(1).clamp(min=1))
        return torch.stack(found, 1)


def stack(sizes, activation):
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation(outputs)]
    return layers


class DeepFM(nn.Module):
    def __init__(self, clicks):
        super().__init__()
        dim, hidden = clicks.settings["embedding_dim"], clicks.settings["hidden_units"]
        self.numbers = [name for (name,) in clicks.of("number")]
        self.weights, self.vectors = Fields(clicks, 1), Fields(clicks, dim)
        self.number_weights = nn.Parameter(torch.empty(len(self.numbers), 1).uniform_(-0.05, 0.05))
        self.number_vectors = nn.Parameter(
            torch.empty(len(self.numbers), dim).uniform_(-0.05, 0.05)
        )
        fields = len(clicks.of("category")) + len(clicks.of("history"))
        layers = stack([fields * dim + len(self.numbers), *hidden], lambda _: nn.ReLU())
        self.deep = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

    def forward(self, batch):
        x = torch.stack([batch[name] for name in self.numbers], 1)
        vectors = self.vectors(batch)
        deep = self.deep(torch.cat([vectors.flatten(1), x], 1))
        every = torch.cat([vectors, x[..., None] * self.number_vectors], 1)
        pairs = 0.5 * (every.sum(1).square() - every.square().sum(1)).sum(1, keepdim=True)
        return deep + pairs + self.weights(batch).sum(1) + x @ self.number_weights


class Dice(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.normalize = nn.BatchNorm1d(units, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(units))

    def forward(self, x):
        p = torch.sigmoid(self.normalize(x))
        return p * x + (1 - p) * self.alpha * x


class DIN(nn.Module):
    def __init__(self, clicks):
        super().__init__()
        settings = clicks.settings
        dim, self.clicks = settings["embedding_dim"], clicks
        self.numbers = [name for (name,) in clicks.of("number")]
        self.fields = Fields(clicks, dim)
        units = [4 * dim, *settings["attention_units"]]
        self.attention = nn.ModuleList(
            nn.Sequential(*stack(units, lambda _: nn.Sigmoid()), nn.Linear(units[-1], 1))
            for _ in clicks.of("history")
        )
        hidden = settings["din_units"]
        width = len(clicks.of("category")) + len(clicks.of("history"))
        layers = stack([width * dim + len(self.numbers), *hidden], Dice)
        self.deep = nn.Sequential(*layers, nn.Linear(hidden[-1], 1))

    def forward(self, batch):
        tables = self.fields.tables
        found = [tables[name](batch[name]) for name, _ in self.clicks.of("category")]
        for (name, item, _, _), unit in zip(self.clicks.of("history"), self.attention, strict=True):
            history, target = tables[item](batch[name]), tables[item](batch[item])[:, None]
            target = target.expand_as(history)
            pairs = torch.cat([history, target, history - target, history * target], -1)
            weights = unit(pairs) * (batch[name] > 0)[..., None]
            found.append((weights * history).sum(1))
        x = [batch[name][:, None] for name in self.numbers]
        return self.deep(torch.cat([*found, *x], 1))


def build(name, clicks, seed):
    torch.manual_seed(seed)
    model = {"deepfm": DeepFM, "din": DIN}[name](clicks)
    optimizer = torch.optim.Adam(model.parameters(), lr=clicks.settings["learning_rate"])
    rows, parts = clicks.settings["batch_size"], {}
    for part, columns in clicks.parts.items():
        tensors = {column: torch.from_numpy(array) for column, array in columns.items()}
        parts[part] = {c: t if t.is_floating_point() else t.long() for c, t in tensors.items()}

    def epoch():
        model.train()
        train = parts["train"]
        order = torch.randperm(len(train["label"]))
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            batch = {column: tensor[chosen] for column, tensor in train.items()}
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(model(batch)[:, 0], batch["label"])
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def score(part):
        model.eval()
        return model(parts[part])[:, 0].numpy()

    return epoch, score


if __name__ == "__main__":
    common.main(build, ("deepfm", "din"))
