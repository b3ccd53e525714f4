"""The Triton kernels compiled for GPUs, which needs none: what the compiler made of them."""

import json
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPILE = """
import json, re, sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton.language as tl
from lrfused.backends.triton import master, norm, schedule, terms
from lrfused.backends.triton.step import step

STEP = dict(slots="*i64", chunks="*i32", hypers="*fp64", cells="*fp64", terms="*fp64")
STEP.update(used="*fp64", count="i32", groups="i32")
SUM_PIECES = dict(slots="*i64", pieces="*i32", terms="*fp64", sums="*fp64", count="i32")
SUMS = dict(sums_of_pieces="*fp64", first="*i64", sums="*fp64", count="i32")
CLIP = dict.fromkeys(("sums", "limits", "terms", "clipped", "norm"), "*fp64")
UNSCALE = dict(grad_scale="*fp32", found_inf="*fp32", terms="*fp64")
ADVANCE = dict(cells="*fp64", epochs="*i64", first="*i64", segments="*i64", constants="*fp64")
RING = dict(history="*fp64", recorded="*i64", length="i32", groups="i32")
ADVANCE.update(tables="*fp64", **RING)
OBSERVE = dict(cells="*fp64", first="*i64", plateaus="*fp64", states="*fp64", cuts="*i32")
OBSERVE["metric"] = "*fp64"
NOTE_CUTS = dict(cells="*fp64", epochs="*i64", cuts="*i32", **RING)

def built(kernel, signature, constants):
    signature = {**signature, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs={})
    made = compile(source, target=target, options={"num_warps": 4, "enable_fp_fusion": False})
    return made.asm["ptx" if "ptx" in made.asm else "amdgcn"]

arch = sys.argv[1]
target = GPUTarget("cuda", int(arch), 32) if arch.isdigit() else GPUTarget("hip", arch, 64)
texts = {}
for name in sys.argv[2:]:
    dtype, grad, kept = name.split("-")
    kind = {"T": getattr(tl, dtype), "G": getattr(tl, grad), "KEPT": getattr(master, kept).value}
    texts[name] = built(step, STEP, {**kind, "ROWS": 2, "COLS": 1024, "ALIGN": 16})
    gradient = kind["G"]
    wide = kind["T"] if kept == "OWN" else tl.float32
    rows = 128 // gradient.primitive_bitwidth
    shape = {"G": gradient, "W": wide, "ROWS": rows, "ALIGN": 16}
    texts[f"sum of {name}"] = built(norm.sum_pieces, SUM_PIECES, shape)
texts["sums"] = built(norm.sum_parameters, SUMS, {"ROWS": 4})
texts["clip"] = built(norm.clip, {**CLIP, "count": "i32"}, {})
texts["unscale"] = built(terms.unscale, UNSCALE, {})
texts["advance"] = built(schedule.advance, ADVANCE, {"LANES": 1024})
texts["observe"] = built(schedule.observe, OBSERVE, {})
texts["note_cuts"] = built(schedule.note_cuts, NOTE_CUTS, {"LANES": 1024})
print(json.dumps(texts))
"""


# Dtypes of parameter and gradient, and of the tensor kept beside the parameter.
ALONE = [f"{name}-{name}-OWN" for name in ("float32", "float64", "bfloat16", "float16")]
MASTERED = ["bfloat16-bfloat16-WHOLE", "bfloat16-float32-REMAINDER", "float16-float32-WHOLE"]
SCHEDULE = ("advance", "observe", "note_cuts")


def compiled(arch, kinds):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, arch, *kinds],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_on_nvidia_nothing_is_fused_or_flushed_and_accesses_are_wide():
    texts = compiled("90", ALONE + MASTERED)
    for name, ptx in texts.items():
        assert ".ftz" not in ptx, name
        assert "mad.f" not in ptx, name
    for name in ALONE + MASTERED:
        ptx = texts[name]
        wide = "v2.b64" if name.startswith("float64") else "v4.b32"
        assert f"ld.global.{wide}" in ptx, f"{name}: no 16-byte load"
        assert f"st.global.{wide}" in ptx, f"{name}: no 16-byte store"
        # Two paths (whole tiles and others), 16 elements a thread, 4 fmas and 3 products each.
        bits = 64 if name.startswith("float64") else 32
        assert ptx.count(f"fma.rn.f{bits}") == 2 * 16 * 4, name
        ptx = texts[f"sum of {name}"]
        wide = "v2.b64" if "float64" in name else "v4.b32"
        assert ptx.count(f"ld.global.{wide}") == 4096 // 128, f"{name}: a piece has 32 wide loads"
        assert "fma" not in ptx, f"{name}: a square is rounded before it is added"
    for name in ALONE:
        assert ".shared" not in texts[name], f"{name}: streams of one width need no exchange"
    for name in (*SCHEDULE, "sums", "clip"):
        assert "fma" not in texts[name], f"{name}: torch's schedulers, and sums, do not fuse"
    assert "div.rn.f64" in texts["unscale"], "as GradScaler divides"
    for exact in ("sqrt.rn.f64", "div.rn.f64", "0d3EB0C6F7A0B5ED8D"):  # the last is 1e-6 in fp64
        assert exact in texts["clip"]


def test_for_amd_the_kernels_compile():
    texts = compiled("gfx942", [ALONE[0], *MASTERED])
    assert "global_load_dwordx4" in texts[ALONE[0]]
    for name in SCHEDULE:
        # A division is made of five.
        fused = len(re.findall(r"v_fmac?_f64", texts[name]))
        assert fused == 5 * texts[name].count("v_div_fixup_f64"), f"{name}: torch does not fuse"
