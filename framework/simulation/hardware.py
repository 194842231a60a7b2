"""Devices that can be simulated, each figure with its source.

Data sheets give peaks that no program reaches. For a device that was not measured here, the rates are the data sheet's
times the share that the same figure reached on the H200: 0.90 of the bandwidth and 0.80 of the dense bfloat16 rate.
"""

from __future__ import annotations

from framework.interfaces.cost_model import Hardware

_BANDWIDTH_SHARE, _MATRIX_SHARE = 0.90, 0.80
_HOST = {"launch_s": 3.7e-5, "graph_launch_s": 6e-5, "capture_s": 0.3}
"""Times of this engine's host code beside an H200 (experiments/simulator_fidelity: 8.6 ms to launch an eager step
of 232 kernels, 0.06 ms to replay a graph, 7.5 s to capture 20). They belong to the CPU more than to the GPU: the same
code took twice as long at other times."""


def _from_data_sheet(
    name: str, device_name: str, memory_gib: float, gb_per_s: float, tflops: float, link_gb_per_s: float, link: str
) -> Hardware:
    return Hardware(
        name=name,
        device_name=device_name,
        memory_gib=memory_gib,
        bytes_per_s=gb_per_s * 1e9 * _BANDWIDTH_SHARE,
        flops_per_s=tflops * 1e12 * _MATRIX_SHARE,
        kernel_s=2.0e-6,
        product_s=4.5e-6,
        link_bytes_per_s=link_gb_per_s * 1e9,
        link_latency_s=1.0e-5 if link == "NVLink" else 3.0e-5,
        source=f"data sheet ({gb_per_s:g} GB/s, {tflops:g} TFLOP/s dense bfloat16, {link} {link_gb_per_s:g} GB/s), "
        f"rates times {_BANDWIDTH_SHARE} and {_MATRIX_SHARE}; host figures of an H200 machine",
        **_HOST,
    )


HARDWARE = {
    hardware.name: hardware
    for hardware in (
        Hardware(
            name="h200",
            device_name="NVIDIA H200",
            memory_gib=139.8,
            bytes_per_s=4.3e12,
            flops_per_s=7.9e14,
            kernel_s=2.0e-6,
            product_s=4.5e-6,
            link_bytes_per_s=4.5e11,
            link_latency_s=1.0e-5,
            source="measured by this project on one H200 (experiments/gpu_speed: 4.3 TB/s, 790 TFLOP/s, 0.73 ms/step "
            "of one row, small matrix products 6 to 7 us where their bytes need 1 to 3); link: data sheet, NVLink "
            "450 GB/s a direction",
            **_HOST,
        ),
        Hardware(
            name="cpu",
            device_name="CPU",
            memory_gib=8.0,
            bytes_per_s=1.5e10,
            flops_per_s=8e10,
            kernel_s=2e-5,
            product_s=0.0,
            launch_s=0.0,
            graph_launch_s=0.0,
            capture_s=0.0,
            link_bytes_per_s=1e10,
            link_latency_s=5e-5,
            source="order of magnitude of two cores of a server; calibrate to know one",
        ),
        _from_data_sheet("h100", "NVIDIA H100 80GB HBM3", 79.1, 3350, 989, 450, "NVLink"),
        _from_data_sheet("a100", "NVIDIA A100-SXM4-80GB", 79.3, 2039, 312, 300, "NVLink"),
        _from_data_sheet("l40s", "NVIDIA L40S", 44.5, 864, 362, 32, "PCIe 4.0"),
        _from_data_sheet("rtx4090", "NVIDIA GeForce RTX 4090", 23.6, 1008, 165.2, 32, "PCIe 4.0"),
    )
}


def hardware(name: str) -> Hardware:
    """The device with this name.

    Raises:
        ValueError: there is none; lists those that exist.
    """
    if name not in HARDWARE:
        raise ValueError(f"executor.hardware={name} does not exist; choose from {', '.join(HARDWARE)}")
    return HARDWARE[name]
