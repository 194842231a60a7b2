"""The time of bytes at the bandwidth or of operations at the matrix rate, whichever is longer, plus launch costs."""

from __future__ import annotations

from framework.interfaces.cost_model import CostModel, Deployment, StepCost, StepShape
from framework.interfaces.graph import GraphScope
from framework.registry import COST_MODELS

_LAYER_KERNELS = 8
"""Kernels of a fused layer: norm, QKV, rotation and cache write, attention, output, norm, gate and up, activation,
down."""
_OTHER_KERNELS = 8
"""Kernels outside the layers: embedding, last norm, head, sampling, feeding the token back."""
_LAYER_PRODUCTS = 4
_VECTOR_ROWS = 8
"""Up to this many rows a product is one pass over the weights, without matrix units."""
_TILE_TOKENS = 64
"""Matrix units take rows in tiles: a product of fewer rows costs as much. One tile fills them in half the time."""


@COST_MODELS.register("roofline")
class Roofline(CostModel):
    """A model of a step from first principles (Williams et al., "Roofline", CACM 2009), for devices without a profile.

    The products of each layer take the longer of two times: that of their operations at the matrix rate, and that of
    their bytes at the bandwidth. Attention reads the context of decode rows and multiplies the query-key pairs of
    chunks. The LM head runs for sampled rows. Every kernel adds the device's start-up time in a graph, and the host's
    launch time outside one. Products of more than a few rows add the time that matrix units take to fill. Rows and
    tokens that pad a graph are computed too. With tp > 1 each rank holds its share, and two all-reduces per layer move
    the hidden states (in a ring: 2 (n - 1) / n of them over a link, after its latency).

    Of E experts of which a token has K, n tokens read the share 1 - (1 - K / E)^n, as if a router chose at random. The
    time to launch a kernel per expert is not counted.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        host_s: float = 2e-5,
        host_row_s: float = 1e-6,
        bandwidth_share: float = 1.0,
        matrix_share: float = 0.85,
    ) -> None:
        """
        Args:
            host_s: host time of planning and delivering a step, in seconds.
            host_row_s: further host time per row, in seconds.
            bandwidth_share: part of the hardware's measured bandwidth that kernels reach.
            matrix_share: part of the hardware's measured matrix rate that kernels reach.
        """
        super().__init__(deployment)
        for name, value in (("bandwidth_share", bandwidth_share), ("matrix_share", matrix_share)):
            if not 0 < value <= 1:
                raise ValueError(f"cost_model.{name}={value} must be in (0, 1]")
        for name, value in (("host_s", host_s), ("host_row_s", host_row_s)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"cost_model.{name}={value} must be a finite number of seconds, at least 0")
        hardware, model, tp = deployment.hardware, deployment.model, deployment.tp
        item, kv_item = deployment.item_bytes, deployment.kv_item_bytes
        self.host_s, self.host_row_s = host_s, host_row_s
        self._byte_s = 1 / (hardware.bytes_per_s * bandwidth_share)
        # A matrix unit multiplies float32 at a fraction of its half-type rate.
        self._flop_s = 1 / (hardware.flops_per_s * matrix_share * (1 if item <= 2 else 1 / 8))
        layers = model.num_layers
        self._layer_token_s = layers * 2 * model.active_layer_parameters * self._flop_s / tp
        experts = model.num_expert_layers * model.num_experts * 3 * model.hidden_size * model.expert_size
        self._expert_weight_s = experts * item * self._byte_s / tp
        self._layer_weight_s = layers * model.layer_parameters * item * self._byte_s / tp - self._expert_weight_s
        self._missed = 1 - model.experts_per_token / model.num_experts if model.num_experts else 1.0
        self._head_weight_s = model.vocab_size * model.hidden_size * item * self._byte_s / tp
        self._head_row_s = 2 * model.vocab_size * model.hidden_size * self._flop_s / tp
        self._logits_row_s = 2 * model.vocab_size * item * self._byte_s / tp
        # Written and read once each: normed input, queries, attention output, both residual updates, gate, up, product.
        values = 8 * model.hidden_size + 3 * model.num_heads * model.head_size // tp + 5 * model.intermediate_size // tp
        self._activation_token_s = layers * 2 * values * item * self._byte_s
        kv_ranks = min(tp, model.num_kv_heads)  # beyond that many, ranks hold the same heads
        self._kv_token_s = model.kv_values_per_token * kv_item * self._byte_s / kv_ranks
        self._pair_s = 4 * layers * model.num_heads * model.head_size * self._flop_s / tp
        self._num_kernels = layers * _LAYER_KERNELS + _OTHER_KERNELS
        self._reduce_s = self._reduce_token_s = 0.0
        if tp > 1:
            self._num_kernels += 2 * layers
            self._reduce_s = 2 * layers * hardware.link_latency_s
            moved = 2 * (tp - 1) / tp * model.hidden_size * item
            self._reduce_token_s = 2 * layers * moved / hardware.link_bytes_per_s
        self._kernels_s = self._num_kernels * hardware.kernel_s
        self._eager_launch_s = self._num_kernels * hardware.launch_s
        self._mixed_launch_s = layers * hardware.launch_s  # decode rows and chunks are attended by kernels of their own
        self._products_s = layers * _LAYER_PRODUCTS * hardware.product_s
        self._pieces_launch_s = layers * (hardware.launch_s + hardware.graph_launch_s)
        self._graph_launch_s, self._capture_s = hardware.graph_launch_s, hardware.capture_s

    def cost(self, step: StepShape) -> StepCost:
        tokens = step.padded_tokens
        sampled = step.padded_rows if step.scope is GraphScope.STEP else step.num_sampled
        tiled = max(tokens, _TILE_TOKENS)
        weight_s = self._layer_weight_s
        if self._expert_weight_s:
            weight_s += self._expert_weight_s * (1 - self._missed**tokens)
        device_s = max(weight_s, self._layer_token_s * tiled) + self._activation_token_s * tokens
        if sampled:
            device_s += max(self._head_weight_s, self._head_row_s * max(sampled, _TILE_TOKENS))
            device_s += self._logits_row_s * sampled
        device_s += self._kv_token_s * (step.decode_kv_tokens + step.num_tokens)
        device_s += max(self._pair_s * step.prefill_pairs, self._kv_token_s * step.prefill_kv_tokens)
        device_s += self._kernels_s + self._reduce_s + self._reduce_token_s * tokens
        if tokens > _VECTOR_ROWS:
            device_s += self._products_s / 2 if tokens <= _TILE_TOKENS else self._products_s
        host_s = self.host_s + self.host_row_s * step.num_rows
        if step.captures:
            host_s += self._capture_s
        if step.scope is None:
            mixed = 0 < step.num_decode_rows < step.num_rows
            return StepCost(device_s, host_s, self._eager_launch_s + (self._mixed_launch_s if mixed else 0.0))
        if step.scope is GraphScope.PIECES:
            return StepCost(device_s, host_s, self._pieces_launch_s)
        return StepCost(device_s, host_s + self._graph_launch_s)

    def effective(self) -> dict[str, object]:
        return {"source": self.deployment.hardware.source}
