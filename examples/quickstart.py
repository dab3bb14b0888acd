# %% [markdown]
# # From a recording to a scored decoder
#
# The recording is the demo that is shipped with neds-rt: a mouse that turns a wheel, 300 trials of 0.94 s, 449 units.
# [docs/python.md](../docs/python.md) says what each call gives.

# %%
from pathlib import Path

from matplotlib import pyplot as plt

import neds_core
from neds_core import decode, fit, load, score

# %% [markdown]
# ## Load
#
# `load` takes a `Session.npz`, and NWB, Phy, ALF, XDF, MATLAB or a table.

# %%
examples = Path(neds_core.__file__).parents[1] / "examples"
session = load(examples / "ibl-dy016" / "session.npz")
print(session.summary())

# %% [markdown]
# ## Train
#
# NEDS and the ridge beside it learn from the first 70 % of the recording and are chosen on the next 10 %. This network is
# small and trains for seconds, so that you see the whole way: the shipped decoder trained for minutes, with the keys
# of `examples/ibl-dy016/train.toml`, and is better.

# %%
made = fit(
    session,
    outputs=["wheel_speed", "whisker_motion_energy"],
    min_rate_hz=0.5,
    model={"width": 32, "layers": 1, "unit_dropout": 0.5},
    masks={"decoding": 3.0},
    fit={"steps": 120, "batch": 16, "refit": False},
    linear={"lags": [10], "filter_taus_ms": [[40.0, 120.0, 300.0]]},
)

# %% [markdown]
# ## Decode and score
#
# The last 20 % were not looked at so far. Values are in the unit of each output, as a run would publish them.

# %%
decoded = decode(made, session)
print(score(decoded, session))

# %% [markdown]
# ## Plot
#
# The first ten held-out trials, one after the other.

# %%
start = decoded.t_s[decoded.inside][0]
figure, axes = plt.subplots(len(decoded.values), 1, sharex=True, figsize=(9.0, 5.0), layout="constrained")
for axis, name in zip(axes, decoded.values, strict=True):
    axis.plot(decoded.t_s, session.values[name], color="0.6", label="measured")
    axis.plot(decoded.t_s, decoded.ridge[name], color="tab:orange", linewidth=1.0, label="ridge")
    axis.plot(decoded.t_s, decoded.of("neds")[name], color="tab:blue", label="NEDS")
    axis.set(ylabel=f"{name}\n{decoded.spec(name).unit}", xlim=(start, start + 9.4))
axes[0].legend(loc="upper right", ncols=3)
axes[-1].set_xlabel("time in the recording, s")
figure.savefig("quickstart.png", dpi=150)
