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
# NEDS and the ridge beside it learn from the first 70 % of the recording and are chosen on the next 10 %. This training
# is small: it takes 15 s, and NEDS stays behind the ridge. The shipped decoder was trained for minutes with the keys of
# `examples/ibl-dy016/train.toml`, and is better than it.

# %%
made = fit(
    session,
    outputs=["wheel_speed", "whisker_motion_energy"],
    min_rate_hz=0.5,
    model={"unit_dropout": 0.5},
    masks={"decoding": 3.0},
    fit={"steps": 120, "batch": 16, "window_bins": 47, "learning_rate": 4e-3, "refit": False},
    linear={"lags": []},
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
first = int(decoded.inside.argmax())
shown = slice(first, first + 10 * 47)  # bins
figure, axes = plt.subplots(len(decoded.values), 1, sharex=True, figsize=(9.0, 5.0), layout="constrained")
for axis, name in zip(axes, decoded.values, strict=True):
    for label, values in ("measured", session.values), ("ridge", decoded.ridge), ("NEDS", decoded.of("neds")):
        axis.plot(decoded.t_s[shown], values[name][shown], label=label, color="0.6" if label == "measured" else None)
    axis.set_ylabel(f"{name}, {decoded.spec(name).unit}")
axes[0].legend(loc="upper right", ncols=3)
axes[-1].set_xlabel("time in the recording, s")
figure.savefig("quickstart.png", dpi=150)
