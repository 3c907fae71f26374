"""A device that is lost, or whose memory is full: errors that name it, and a process that goes on.

Besides, one of several devices. All in processes of their own.

A library that is loaded before Vulkan's loader makes the driver's functions fail when told to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reference import devices

COMPILER = shutil.which("cc")

pytestmark = [
    pytest.mark.skipif(
        not (devices.TEST_DEVICE or "").startswith("Vulkan"), reason="needs a Vulkan device"
    ),
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler"),
]

FAULTS = """
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void (*Any)(void);
typedef Any (*Get)(void*, const char*);
enum { OUT_OF_DEVICE_MEMORY = -2, DEVICE_LOST = -4 };

static int told(const char* fault) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("CSM_TEST_FAULTS"), fault);
    return access(path, F_OK) == 0;
}

static int (*submit)(void*, uint32_t, const void*, void*);
static int fail_submit(void* queue, uint32_t n, const void* what, void* fence) {
    return told("lost") ? DEVICE_LOST : submit(queue, n, what, fence);
}
static int (*allocate)(void*, const void*, const void*, void*);
static int fail_allocate(void* device, const void* what, const void* how, void* memory) {
    return told("full") ? OUT_OF_DEVICE_MEMORY : allocate(device, what, how, memory);
}

static Get of_device;
static Any get_of_device(void* device, const char* name);
static Any replace(const char* name, Any found) {
    if (found == NULL) return found;
    if (strcmp(name, "vkQueueSubmit") == 0) {
        submit = (int (*)(void*, uint32_t, const void*, void*))found;
        return (Any)fail_submit;
    }
    if (strcmp(name, "vkAllocateMemory") == 0) {
        allocate = (int (*)(void*, const void*, const void*, void*))found;
        return (Any)fail_allocate;
    }
    if (strcmp(name, "vkGetDeviceProcAddr") == 0) {
        of_device = (Get)found;
        return (Any)get_of_device;
    }
    return found;
}
static Any get_of_device(void* device, const char* name) {
    return replace(name, of_device(device, name));
}
Any vkGetInstanceProcAddr(void* instance, const char* name) {
    static Get real;
    void* loader = dlopen("libvulkan.so.1", RTLD_NOW);
    if (real == NULL) real = (Get)dlsym(loader, "vkGetInstanceProcAddr");
    return replace(name, real(instance, name));
}
"""

CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from csm_ggml import _core
from reference import engines, scenes
from reference.recipes import PLAIN4

faults, path, device = Path(os.environ["CSM_TEST_FAULTS"]), sys.argv[2], sys.argv[3]
model = _core.Model([path], device=device, threads=1)
engine = _core.Engine(model, slots=2)
slot = engines.open_slot(engine, scenes.text_prompt(PLAIN4), **engines.GREEDY)
decoder, encoder = _core.MimiDecoder(model), _core.MimiEncoder(model)
codes = scenes.codes(PLAIN4, "fault", 2)
engine.step([slot])
samples = decoder.decode(codes)

def fails(fault, *actions):
    (faults / fault).touch()
    for action in actions:
        try:
            action()
        except _core.BackendError as e:
            print(fault, e, flush=True)
    (faults / fault).unlink()

fails("full", lambda: _core.Engine(model, slots=64), lambda: _core.Model([path], device=device))
engine.step([slot])
print("goes on", flush=True)
fails(
    "lost",
    lambda: engine.step([slot]),
    lambda: engines.open_slot(engine, scenes.text_prompt(PLAIN4), **engines.GREEDY),
    lambda: decoder.decode(codes),
    lambda: encoder.encode(samples),
)
"""


SECOND = """
import sys
sys.path.insert(0, sys.argv[1])
from csm_ggml import _core
from reference import engines, scenes
from reference.recipes import PLAIN4

for device in "cpu", "gpu:0", "gpu:1":
    model = _core.Model([sys.argv[2]], device=device, threads=1)
    said = engines.speak_alone(model, scenes.text_prompt(PLAIN4), 4, **engines.GREEDY)
    print(model.device, said.tolist())
try:
    _core.Model([sys.argv[2]], device="gpu:2")
except _core.BackendError as e:
    print(e)
"""


def run(code: str, *arguments: str, **environment: str) -> list[str]:
    """The lines that a process writes; it has to end well."""
    said = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout.splitlines()


def test_errors_name_the_device_and_end_no_process(
    tmp_path: Path, gguf: Callable[..., Path]
) -> None:
    source, library, faults = tmp_path / "faults.c", tmp_path / "faults.so", tmp_path / "faults"
    source.write_text(FAULTS)
    faults.mkdir()
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source], check=True)
    device = str(devices.TEST_DEVICE)
    settings = {"LD_PRELOAD": str(library), "CSM_TEST_FAULTS": str(faults)}
    lines = run(CHILD, str(gguf("plain4")), device, **settings)
    assert [line.split()[0] for line in lines] == ["full"] * 2 + ["goes"] + ["lost"] * 4, lines
    assert all(device in line for line in lines if line != "goes on"), lines


@pytest.mark.skipif(
    "GGML_VK_VISIBLE_DEVICES" not in os.environ, reason="needs a device's number to name it twice"
)
def test_the_second_of_two_devices(gguf: Callable[..., Path]) -> None:
    number = os.environ["GGML_VK_VISIBLE_DEVICES"].split(",")[0]
    *said, refused = run(SECOND, str(gguf("plain4")), GGML_VK_VISIBLE_DEVICES=f"{number},{number}")
    assert [line.split()[0] for line in said] == ["CPU", "Vulkan0", "Vulkan1"]
    if devices.exact(str(devices.TEST_DEVICE)):
        assert len({line.split(maxsplit=1)[1] for line in said}) == 1, said
    assert refused.startswith("device 'gpu:2': there are 2 GPUs, gpu:0 to gpu:1")
