"""Contrastive Disentangling in PyTorch, from the paper: the network and the three losses.

Backbone: torchvision's ResNet without its classifier, D features. Instance projector: Linear(D, D, no bias) - BN - ReLU -
Linear(D, d). Feature predictor: Linear(d, D, no bias) - BN - ReLU - Linear(D, K, no bias) - BN - sigmoid. Each view goes
through the network by itself, as batch norm takes its statistics over one view.
"""

import math

import torch
import torchvision
from torch import nn
from torch.nn import functional

TEMPERATURE_INSTANCE = 0.5
TEMPERATURE_FEATURE = 1.0
ENTROPY_WEIGHT = 1.0


class Network(nn.Module):
    """From images [N, 3, px, px] to projections [N, d] and heads before the sigmoid [N, K]."""

    def __init__(self, backbone, projection_dim, heads):
        super().__init__()
        self.backbone = getattr(torchvision.models, backbone)()
        width = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.instance_projector = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, projection_dim)
        )
        self.feature_predictor = nn.Sequential(
            nn.Linear(projection_dim, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, heads, bias=False),
            nn.BatchNorm1d(heads),
        )

    def forward(self, images):
        z = self.instance_projector(self.backbone(images))
        return z, self.feature_predictor(z)


def nt_xent(samples, temperature):
    """NT-Xent of 2R samples in rows, row i and row i + R being two views of one."""
    count = samples.shape[0]
    unit = functional.normalize(samples, dim=1, eps=1e-12)
    logits = unit @ unit.T / temperature
    itself = torch.eye(count, dtype=torch.bool, device=samples.device)
    positive = torch.arange(count, device=samples.device).roll(count // 2)
    return functional.cross_entropy(logits.masked_fill(itself, float("-inf")), positive)


def entropy(logits):
    """Mean entropy of sigmoid heads in bits, from their logits: exact where they are saturated."""
    logits = logits.float()
    return (functional.softplus(logits) - logits * torch.sigmoid(logits)).mean() / math.log(2)


def loss(network, first, second):
    """L = L_inst + L_feat - alpha L_entropy of two views of a batch."""
    (z1, a1), (z2, a2) = network(first), network(second)
    heads = torch.cat([torch.sigmoid(a1).T, torch.sigmoid(a2).T])
    instance = nt_xent(torch.cat([z1, z2]), TEMPERATURE_INSTANCE)
    feature = nt_xent(heads, TEMPERATURE_FEATURE)
    return instance + feature - ENTROPY_WEIGHT * entropy(torch.cat([a1, a2]))
