"""Old checkpoints that attack their reader: each is refused in one line, within bounds of time and
memory, and nothing that it names is run or imported.

All are read in one process of its own, whose address space may grow by 1 GiB, with an audit hook
that records every import, execution, unpickling and process start.
"""

import io
import json
import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from dnnlib import UserError
from tests.data.legacy.old_layout import (
    Call,
    Name,
    New,
    Raw,
    encode,
    pickled,
    state_of,
    stored_checkpoint,
    stored_module,
    stored_storage,
    stored_tensor,
)
from tests.helpers import PATIENCE
from training.files.legacy import load_legacy, read_legacy
from training.networks.generator import Generator
from training.networks.layers import FullyConnected
from training.presets import build_config

READER = """
import json, resource, sys, time
import torch
import training.files.legacy as legacy
from dnnlib import UserError
from tests.helpers import PATIENCE

watched = ("import", "exec", "compile", "os.system", "os.exec", "os.posix_spawn", "os.remove",
           "subprocess.Popen", "pickle.find_class", "socket.connect", "ctypes.dlopen")
events = []
legacy.load_legacy(sys.argv[1])  # whatever torch imports late is imported by now
sys.addaudithook(lambda event, args: event in watched and events.append([event, str(args)[:200]]))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
for path in sys.argv[2:]:
    events.clear()
    start = time.process_time()
    try:
        legacy.load_legacy(path)
        kind, message = "loaded", ""
    except UserError as error:
        kind, message = "UserError", str(error)
    except BaseException as error:
        kind, message = type(error).__name__, str(error)[:500]
    seconds = time.process_time() - start
    print(json.dumps([path, kind, message, seconds, events]), flush=True)
"""


class Reduced:
    """An object that pickles as a call."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def tiny_checkpoint(**sizes):
    changes = {
        "generator.z_dim": 4,
        "generator.w_dim": 4,
        "generator.channel_base": 64,
        "generator.channel_max": 4,
        "generator.plane_resolution": 16,
        "generator.plane_channels": 2,
        "generator.decoder_hidden": 4,
        **sizes,
    }
    torch.manual_seed(0)
    return stored_checkpoint(Generator(build_config("toy", changes)))


GOOD_NETWORK = Raw(encode(tiny_checkpoint()["G_ema"]))


def with_extra(value):
    """A good checkpoint with something bad in it."""
    return pickled({"extra": value, "G_ema": GOOD_NETWORK})


def with_option(value):
    checkpoint = tiny_checkpoint()
    state_of(checkpoint["G_ema"])["rendering_kwargs"]["depth_resolution"] = value
    return pickled(checkpoint)


def doubled(times, pair):
    """x = (x, x), `times` times: a billion laughs. pair: what makes one of the two on the stack."""
    return Raw(b"](K\x01e" + (b"q\x00h\x00" + pair) * times)


def nested(data):
    return with_extra(Call("torch.storage._load_from_bytes", (data,)))


def storage_bytes():
    return stored_storage(torch.zeros(4)).args[0]


def rebuilt(*layout):
    """A tensor of a storage of 4 numbers."""
    storage = stored_storage(torch.zeros(4))
    return with_extra(Call("torch._utils._rebuild_tensor_v2", (storage, *layout, False, {})))


def shared_weights():
    """A hundred layers of 1 MiB, all made from the same bytes."""
    checkpoint = tiny_checkpoint(**{"generator.mapping_layers": 40, "generator.w_dim": 256})
    modules = state_of(checkpoint["G_ema"], "backbone.mapping")["_modules"]
    shared = encode(state_of(modules["fc1"])["_parameters"]["weight"])
    for i in range(1, 40):
        again = b"r\x00\x01\x00\x00" if i == 1 else b""
        code = shared + again if i == 1 else b"j\x00\x01\x00\x00"
        state_of(modules[f"fc{i}"])["_parameters"]["weight"] = Raw(code)
    return pickled(checkpoint)


def self_containing():
    checkpoint = tiny_checkpoint()
    code = b"}r\x00\x01\x00\x00X\x01\x00\x00\x00aj\x00\x01\x00\x00s"
    state_of(checkpoint["G_ema"])["_modules"]["backbone"] = New("m.c", (), {"_modules": Raw(code)})
    return pickled(checkpoint)


def zip_archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    return buffer.getvalue()


def hostile_files(sentinel):
    """name -> bytes. sentinel: a path that any of them creates, if run."""
    shell = f"touch {sentinel}"
    python = f"open({str(sentinel)!r}, 'w')"
    files = {}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        files[f"os.system, protocol {protocol}"] = pickle.dumps(Reduced(os.system, shell), protocol)
        files[f"eval, protocol {protocol}"] = pickle.dumps({"G": Reduced(eval, python)}, protocol)
    calls = {
        "posix.system": (shell,),
        "builtins.eval": (python,),
        "builtins.exec": (python,),
        "builtins.__import__": ("antigravity",),
        "builtins.getattr": (Name("os.path"), "join"),
        "subprocess.Popen": (shell, 0, None, None, None, None, None, True, True),
        "pickle.loads": (pickle.dumps(Reduced(os.system, shell)),),
        "functools.partial": (Name("os.system"), shell),
        "torch.load": ("/etc/passwd",),
        "torch.hub.load": ("a/b", "c"),
        "torch._tensor._rebuild_from_type_v2": (Name("os.system"), Name("a.b"), (shell,), {}),
        "torch._utils._rebuild_wrapper_subclass": (Name("os.system"), 1, (), (), 0, 0, 0, False),
        "torch._utils._rebuild_parameter": (Name("os.system"), True, {}),
        "torch._utils._rebuild_tensor_v2": (Name("os.system"), 0, (1,), (1,), False, {}),
        "torch.storage._load_from_bytes": (pickle.dumps(Reduced(os.system, shell)),),
        "numpy.core.multiarray.scalar": (Name("os.system"), shell.encode()),
        "dnnlib.util.EasyDict": (Call("posix.system", (shell,)),),
        "dnnlib.util.construct_class_by_name": (shell,),
        "torch_utils.persistence._reconstruct_persistent_obj": ({"module_src": python},),
    }
    files |= {f"calls {name}": with_extra(Call(name, args)) for name, args in calls.items()}
    for name, args in calls.items():
        files[f"calls {name}, old way"] = pickled({"G_ema": Call(name, args)}, lines=True)

    system, evil = encode(Name("posix.system")), encode(Call("posix.system", (shell,)))
    codes = {
        "instance": b"(" + encode(shell) + b"iposix\nsystem\n",
        "object": b"(" + system + encode(shell) + b"o",
        "extension": b"\x82\x01" + encode((shell,)) + b"R",
        "extension of 4 bytes": b"\x84\x01\x00\x00\x00" + encode((shell,)) + b"R",
        "persistent text id": b"Pposix.system\n",
        "persistent id": encode(("storage", shell)) + b"Q",
        "new with keywords": system + encode(()) + encode({"command": shell}) + b"\x92",
        "duplicate": b"N2",
        "out-of-band buffer": b"\x97",
        "text number": b"I" + b"9" * 100_000 + b"\n",
        "text": b"S'" + python.encode() + b"'\n",
        "state for a function": system + encode((None, {"__defaults__": (1,)})) + b"b",
        "state for a tuple": b")" + encode({"__class__": Name("os.system")}) + b"b",
        "state from a call": encode(New("a.b")) + evil + b"b",
        "class from a call": evil + b")\x81",
        "name from numbers": b"K\x01K\x02\x93",
        "name from a call": evil + encode("x") + b"\x93",
        "empty stack": b"0000",
        "no mark": b"tue",
        "absent memory": b"h\x07",
        "key without value": b"}(Nu",
        "tuple as key": b"})Ns",
        "list as key": b"}]Ns",
        "append to nothing": b"NNa",
        "call of a record": encode(New("a.b")) + encode((shell,)) + b"R",
        "arguments of a record": system + encode(New("a.b")) + b"R",
    }
    files |= {f"opcode: {name}": with_extra(Raw(code)) for name, code in codes.items()}

    huge = (1 << 31) - 1
    lengths = {
        "text": b"X" + huge.to_bytes(4, "little"),
        "long text": b"\x8d" + (1 << 62).to_bytes(8, "little"),
        "bytes": b"B" + huge.to_bytes(4, "little"),
        "long bytes": b"\x8e" + (1 << 62).to_bytes(8, "little"),
        "more bytes than memory": b"\x8e" + (1 << 64).__sub__(1).to_bytes(8, "little"),
        "byte array": b"\x96" + huge.to_bytes(8, "little"),
        "frame": b"\x95" + (1 << 63).to_bytes(8, "little") + b"X" + huge.to_bytes(4, "little"),
        "number": b"\x8b" + huge.to_bytes(4, "little"),
        "memory index": b"Nr\xff\xff\xff\xff" * 2 + b"j\xfe\xff\xff\xff",
        "line": b"c" + b"a" * (1 << 22),
    }
    files |= {f"length: {name}": with_extra(Raw(code)) for name, code in lengths.items()}

    deep = 120_000
    files |= {
        "deep marks": b"\x80\x04" + b"(" * deep + b".",
        "deep lists": b"\x80\x04" + b"]" * deep + b"a" * (deep - 1) + b".",
        "deep tuples": b"\x80\x04)" + b"\x85" * deep + b".",
        "deep tuple as key": b"\x80\x04})" + b"\x85" * deep + b"Ns.",
        "deep records": b"\x80\x04"
        + encode(Name("a.b"))
        + b"q\x00"
        + b"h\x00)\x81" * deep
        + b"b" * (deep - 1)
        + b".",
        "too many opcodes": b"\x80\x04" + b"]" * 2_000_000 + b".",
        "too much text": b"\x80\x04" + (b"X\x00\x00\x80\x00" + bytes(1 << 23)) * 9 + b".",
        "laughing tuples": with_extra(doubled(10_000, b"\x86")),
        "laughing key": with_extra(Raw(b"}" + doubled(60, b"\x86").code + b"Ns")),
        "laughing setting": with_option(doubled(60, b"\x86")),
        "laughing dimensions": rebuilt(0, doubled(60, b"\x86"), (1,)),
        "colliding keys": with_extra(dict.fromkeys((i * ((1 << 61) - 1) for i in range(1000)), 0)),
        "module that contains itself": self_containing(),
        "weights made from the same bytes": shared_weights(),
    }

    good = storage_bytes()
    evil_pickle = pickle.dumps(Reduced(os.system, shell), 2)
    inner = good
    for _ in range(200):
        inner = pickled(Call("torch.storage._load_from_bytes", (inner,)))
    files |= {
        "storage: a call": nested(evil_pickle),
        "storage: a call after the header": nested(good[:15] + evil_pickle),
        "storage: a call in the reference": nested(good.replace(b"ctorch\nFloatStorage\n", system)),
        "storage: of functions": nested(good.replace(b"torch\nFloatStorage", b"posix\nsystem")),
        "storage: within itself": nested(inner),
        "storage: truncated": nested(good[:-1]),
        "storage: empty": nested(b""),
        "storage: too many": nested(good[:-24] + (1 << 40).to_bytes(8, "little") + good[-16:]),
        "storage: not bytes": with_extra(Call("torch.storage._load_from_bytes", ({},))),
        "storage: zip": nested(zip_archive()),
        "tensor: beyond the end": rebuilt(1, (4,), (1,)),
        "tensor: before the start": rebuilt(-4, (4,), (1,)),
        "tensor: backwards": rebuilt(3, (4,), (-1,)),
        "tensor: of one number": rebuilt(0, (huge, huge), (0, 0)),
        "tensor: overflow": rebuilt(0, (1 << 63, 2), (1, 1)),
        "tensor: astronomic": rebuilt(0, (1 << 2000,), (1,)),
        "tensor: too many dimensions": rebuilt(0, (1,) * 100_000, (1,) * 100_000),
        "tensor: strides missing": rebuilt(0, (2, 2), (1,)),
        "tensor: text": rebuilt("0", ("2",), ("1",)),
        "tensor: no arguments": with_extra(Call("torch._utils._rebuild_tensor_v2")),
    }

    whole = pickled(tiny_checkpoint())
    files |= {f"truncated to {i}/8": whole[: len(whole) * i // 8] for i in range(8)}
    files |= {
        "truncated by one": whole[:-1],
        "empty pickle": b"\x80\x04.",
        "list": pickled([1, 2, 3]),
        "networks that are none": pickled({"G": 1, "D": [], "G_ema": {"a": 1}}),
        "network without parts": pickled({"G_ema": stored_module(FullyConnected(2, 2))}),
        "network of an absurd name": with_extra(
            Call(
                "torch_utils.persistence._reconstruct_persistent_obj",
                ({"type": "class", "class_name": "x\n" * (1 << 20), "state": {}},),
            )
        ),
        "option: astronomic": with_option(1 << 2000),
        "option: not a number": with_option(float("nan")),
        "option: infinite": with_option(float("inf")),
        "option: huge": with_option(1 << 30),
        "option: text": with_option("[" * 100_000),
        "option: brackets": with_option("[" * 200),
        "option: tensor": with_option(stored_tensor(torch.zeros(2))),
        "zip archive": zip_archive(),
        "page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zeros": bytes(1000),
    }
    return files


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def sentinel(hostile_folder):
    return hostile_folder / "was_run"


NAMES = [*hostile_files(Path("unused")), "three gigabytes", "source text that ends the process"]
# What is never looked at does no harm, and the source text in a real file is only text.
HARMLESS = ("laughing tuples", "source text that ends the process")


@pytest.fixture(scope="module")
def outcomes(hostile_folder, sentinel):
    """name -> (kind, message, seconds, audited events), of all files, read by one process."""
    paths = {name: hostile_folder / f"{i:03d}.pkl" for i, name in enumerate(NAMES)}
    for name, data in hostile_files(sentinel).items():
        paths[name].write_bytes(data)
    with open(paths["three gigabytes"], "wb") as file:
        file.write(b"\x80\x04")
        file.truncate(3 << 30)  # without taking up room
    good = paths["source text that ends the process"]
    good.write_bytes(pickled(tiny_checkpoint()))
    result = subprocess.run(
        [sys.executable, "-c", READER, good, *paths.values()],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        timeout=PATIENCE,
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == len(paths), f"died after {len(lines)} files: {result.stderr[-2000:]}"
    return {name: line[1:] for name, line in zip(paths, lines, strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_hostile_file_is_refused(outcomes, sentinel, name):
    kind, message, seconds, events = outcomes[name]
    if name in HARMLESS:
        assert kind == "loaded", message
    else:
        assert kind == "UserError", message
        assert "\n" not in message and len(message) < 1000
        assert ".pkl" in message
    assert events == []
    assert seconds < 10
    assert not sentinel.exists()


ODD_VALUES: tuple[object, ...] = (
    *(None, True, -1, 0, 7, 1 << 20, 0.5, "eg3d", "4", [], [1, 2], {"a": 1}, New("a.b")),
)


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_odd_settings_load_or_are_refused(hostile_folder, value):
    path = hostile_folder / "odd.pkl"
    state = state_of(tiny_checkpoint()["G_ema"])
    for key in (*state, *state["rendering_kwargs"], *state["_init_kwargs"]):
        checkpoint = tiny_checkpoint()
        state = state_of(checkpoint["G_ema"])
        for settings in (state, state["rendering_kwargs"], state["_init_kwargs"]):
            if key in settings:
                settings[key] = value
        path.write_bytes(pickled(checkpoint))
        check_loads_or_is_refused(path)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 0), (1, 1), (3, 3, 3), (1,) * 8], ids=str)
def test_odd_tensors_load_or_are_refused(hostile_folder, shape):
    path = hostile_folder / "odd.pkl"
    odd = stored_tensor(torch.ones(shape, dtype=torch.bool))
    for part in ("backbone.mapping.fc0", "decoder.net.0", "decoder.net.2", "backbone.synthesis.b4"):
        checkpoint = tiny_checkpoint()
        parameters = state_of(checkpoint["G_ema"], part)["_parameters"]
        parameters |= dict.fromkeys(parameters, odd)
        path.write_bytes(pickled(checkpoint))
        check_loads_or_is_refused(path)
    checkpoint = tiny_checkpoint()
    state_of(checkpoint["G_ema"], "backbone.mapping")["_buffers"]["w_avg"] = odd
    state_of(checkpoint["G_ema"])["_modules"]["renderer"] = New("a.b", (), {"plane_axes": odd})
    path.write_bytes(pickled(checkpoint))
    check_loads_or_is_refused(path)


def check_loads_or_is_refused(path):
    try:
        load_legacy(path)
    except UserError as error:
        assert "\n" not in str(error)


# Fuzzing -----------------------------------------------------------------------------------------

SEED_FILE = pickled(tiny_checkpoint())
BOUNDARIES = [position for _, _, position in pickletools.genops(SEED_FILE)]
INSTRUCTIONS = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]

position = st.integers(0, len(SEED_FILE) - 1)
boundary = st.sampled_from(BOUNDARIES)
mutation = st.one_of(
    st.tuples(st.just("flip"), position, st.integers(0, 7)),
    st.tuples(st.just("flip"), boundary, st.integers(0, 7)),
    st.tuples(st.just("truncate"), position),
    st.tuples(st.just("insert"), boundary, st.sampled_from(INSTRUCTIONS)),
    st.tuples(st.just("insert"), boundary, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("replace"), boundary, st.sampled_from(INSTRUCTIONS)),
    st.tuples(st.just("splice"), boundary, boundary, boundary),
)


def mutate(data, mutations):
    for kind, at, *how in mutations:
        match kind, how:
            case "flip", [bit]:
                data = data[:at] + bytes(b ^ (1 << bit) for b in data[at : at + 1]) + data[at + 1 :]
            case "truncate", []:
                data = data[:at]
            case "insert", [code]:
                data = data[:at] + code + data[at:]
            case "replace", [code]:
                data = data[:at] + code + data[at + 1 :]
            case "splice", [start, end]:
                data = data[:at] + SEED_FILE[start:end] + data[at:]
    return data


def check_mutant(folder, mutations):
    path = folder / "mutant.pkl"
    path.write_bytes(mutate(SEED_FILE, mutations))
    check_loads_or_is_refused(path)


def fuzz(examples):
    return hypothesis.settings(
        max_examples=examples,
        deadline=60_000,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@fuzz(150)
@hypothesis.given(st.lists(mutation, min_size=1, max_size=3))
def test_mutants_load_or_are_refused(hostile_folder, mutations):
    check_mutant(hostile_folder, mutations)


@pytest.mark.slow
@fuzz(10_000)
@hypothesis.given(st.lists(mutation, min_size=1, max_size=8))
def test_many_mutants_load_or_are_refused(hostile_folder, mutations):
    check_mutant(hostile_folder, mutations)


@pytest.mark.slow
@fuzz(3000)
@hypothesis.given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(hostile_folder, data):
    path = hostile_folder / "arbitrary.pkl"
    path.write_bytes(b"\x80\x04" + data)
    with pytest.raises(UserError):
        read_legacy(path)
