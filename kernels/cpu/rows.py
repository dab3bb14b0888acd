"""What a step does to token rows between the products.

Everything is float32; pointers come from `vectors.at`, strides are in numbers, row widths are multiples of LANES. All
but `rotate` and `scatter` work on FOUR rows at once, which hides the latency of each. With fewer tokens the rows behind
them are worked on too, and must exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.cpu.vectors import FLOAT, FOUR, INDEX, LANES, SHORT, WORD, WORDS, Vectors, full

EPS = 1e-5  # of torch's LayerNorm
ERF_END = 4.0  # beyond, erf is 1 to float32
ERF_TERMS = 17  # of its polynomial
LEAST = -60.0  # of a score, below the highest: its weight is 0 to float32, and far from slow subnormal numbers
TINY = 1e-30  # below every magnitude that counts
ROUND = 1.5 * 2.0**23  # added to a float32 below 2^22, leaves a whole number in its last bits


@intrinsic
def _normed(typing: Any, x: Any, out: Any, stride: Any, width: Any) -> Any:
    """out = LayerNorm of x[:, :width] without gain and bias, which are folded into the weights behind it.

    x, out (4, stride); what x holds from width on is not read, and out is 0 there.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, (x, out, stride, width) = Vectors(context, builder), args
        sources, targets = make.rows(x, stride), make.rows(out, stride)
        zero, nothing = full(0.0), [full(0.0)] * FOUR
        n, end = builder.sitofp(width, FLOAT), make.spread(builder.trunc(width, WORD))

        def mean(totals: Any) -> list[Any]:
            return [make.spread(builder.fdiv(make.joined(one, builder.fadd), n)) for one in totals]

        def less(k: Any, means: list[Any]) -> list[Any]:
            lane = builder.add(make.spread(builder.trunc(k, WORD)), ir.Constant(WORDS, list(range(LANES))))
            inside = builder.icmp_signed("<", lane, end)
            values = [make.load(builder.gep(source, [k])) for source in sources]
            return [builder.select(inside, builder.fsub(v, m), zero) for v, m in zip(values, means, strict=True)]

        def add(k: Any, *totals: Any) -> list[Any]:
            return [builder.fadd(total, v) for total, v in zip(totals, less(k, nothing), strict=True)]

        def add_square(k: Any, *totals: Any) -> list[Any]:
            return [make.fma(v, v, total) for total, v in zip(totals, less(k, means), strict=True)]

        def write(k: Any) -> list[Any]:
            for value, scale, target in zip(less(k, means), scales, targets, strict=True):
                make.store(builder.fmul(value, scale), builder.gep(target, [k]))
            return []

        means = mean(make.loop(stride, LANES, nothing, add))
        variances = mean(make.loop(stride, LANES, nothing, add_square))
        scales = [builder.fdiv(full(1.0), make.root(builder.fadd(one, full(EPS)))) for one in variances]
        make.loop(stride, LANES, [], write)
        return context.get_dummy_value()

    return types.void(x, out, types.int64, types.int64), emit


@intrinsic
def _gelu(typing: Any, x: Any, stride: Any, erf: Any) -> Any:
    """x (4, stride) in place: x (1 + erf(x / sqrt 2)) / 2 (Hendrycks & Gimpel 2016); erf: `Stack.erf`."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, (x, stride, erf) = Vectors(context, builder), args
        sources, one = make.rows(x, stride), full(1.0)
        factors = [make.spread(builder.load(builder.gep(erf, [ir.Constant(INDEX, i)]))) for i in range(ERF_TERMS)]

        def body(k: Any) -> list[Any]:
            pointers = [builder.gep(source, [k]) for source in sources]
            values = [make.load(pointer) for pointer in pointers]
            near = [builder.fmul(v, full(math.sqrt(0.5))) for v in values]
            near = [make.lesser(full(ERF_END), make.greater(full(-ERF_END), v)) for v in near]
            t = [make.fma(builder.fmul(v, v), full(2.0 / ERF_END**2), full(-1.0)) for v in near]
            for pointer, value, v, ratio in zip(pointers, values, near, make.series(factors, t), strict=True):
                part = make.lesser(one, make.greater(full(-1.0), builder.fmul(v, ratio)))
                make.store(builder.fmul(builder.fmul(value, full(0.5)), builder.fadd(one, part)), pointer)
            return []

        make.loop(stride, LANES, [], body)
        return context.get_dummy_value()

    return types.void(x, types.int64, erf), emit


@intrinsic
def _softmax(typing: Any, scores: Any, n: Any, factor: Any, far: Any) -> Any:
    """scores (4, n) in place to weights that sum to 1; factor, far (n,): `Cache` hides slots by them."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, (scores, n, factor, far) = Vectors(context, builder), args
        sources = make.rows(scores, n)

        def score(k: Any) -> list[Any]:
            distance = make.load(builder.gep(far, [k]))
            return [builder.fadd(make.load(builder.gep(source, [k])), distance) for source in sources]

        def find(k: Any, *best: Any) -> list[Any]:
            return [make.greater(a, b) for a, b in zip(score(k), best, strict=True)]  # a NaN is passed over; see below

        def weigh(k: Any, *totals: Any) -> list[Any]:
            # exp(z) = 2^octaves exp(r), |r| <= log(2) / 2: eight terms of its series
            kept = make.load(builder.gep(factor, [k]))
            z = [builder.fsub(s, top) for s, top in zip(score(k), highest, strict=True)]
            z = [make.greater(full(LEAST), one) for one in z]  # a NaN stays one
            turned = [make.fma(one, full(1.0 / math.log(2.0)), full(ROUND)) for one in z]  # octaves in its last bits
            whole = [builder.fsub(one, full(ROUND)) for one in turned]
            r = [make.fma(octaves, full(-math.log(2.0)), one) for octaves, one in zip(whole, z, strict=True)]
            parts = make.series([full(1.0 / math.factorial(i)) for i in range(7, -1, -1)], r)
            out = []
            for part, octaves, source, total in zip(parts, turned, sources, totals, strict=True):
                bits = builder.shl(builder.bitcast(octaves, WORDS), ir.Constant(WORDS, [23] * LANES))
                power = builder.bitcast(builder.add(bits, ir.Constant(WORDS, [127 << 23] * LANES)), part.type)
                e = builder.fmul(builder.fmul(part, kept), power)
                make.store(e, builder.gep(source, [k]))
                out.append(builder.fadd(total, e))
            return out

        def divide(k: Any) -> list[Any]:
            for source, share in zip(sources, shares, strict=True):
                pointer = builder.gep(source, [k])
                make.store(builder.fmul(make.load(pointer), share), pointer)
            return []

        best = make.loop(n, LANES, [full(float("-inf"))] * FOUR, find)
        highest = [make.spread(make.joined(one, make.greater)) for one in best]
        totals = make.loop(n, LANES, [full(0.0)] * FOUR, weigh)
        shares = [builder.fdiv(full(1.0), make.spread(make.joined(one, builder.fadd))) for one in totals]
        make.loop(n, LANES, [], divide)
        return context.get_dummy_value()

    return types.void(scores, types.int64, factor, far), emit


@intrinsic
def _rotate(typing: Any, plain: Any, turned: Any, heads: Any, head: Any, half: Any, cosine: Any, sine: Any) -> Any:
    """Rotary embedding (Su et al. 2021, half-split) of one token's heads, each `head` numbers wide with padding.

    | argument     | shape                    | what lies behind its numbers                                        |
    | ------------ | ------------------------ | ------------------------------------------------------------------- |
    | plain        | (heads * head + LANES,)  | the last LANES are read                                             |
    | turned       | (heads * head + LANES,)  | the last LANES are overwritten, so tokens are turned in their order |
    | cosine, sine | (half + LANES,)          | 0 from half on                                                      |

    A head's padding, behind its 2 * half numbers, is written in part, with finite numbers where plain is finite. The
    rest stays as it was: turned starts as zeros, and keys hold 0 there.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, (plain, turned, heads, head, half, cosine, sine) = Vectors(context, builder), args

        def one_head(h: Any) -> list[Any]:
            begin = builder.mul(h, head)
            source, target = builder.gep(plain, [begin]), builder.gep(turned, [begin])

            def part(second: bool) -> Any:
                def body(k: Any) -> list[Any]:
                    other = builder.add(k, half)
                    a, b = (make.load(builder.gep(source, [i])) for i in (k, other))
                    c, s = (make.load(builder.gep(table, [k])) for table in (cosine, sine))
                    if second:
                        make.store(make.fma(b, c, builder.fmul(a, s)), builder.gep(target, [other]))
                    else:
                        minus = builder.fsub(full(0.0), builder.fmul(b, s))
                        make.store(make.fma(a, c, minus), builder.gep(target, [k]))
                    return []

                return body

            make.loop(half, LANES, [], part(second=False))  # in this order: a vector may write beyond its half
            make.loop(half, LANES, [], part(second=True))
            return []

        make.loop(heads, 1, [], one_head)
        return context.get_dummy_value()

    return types.void(plain, turned, types.int64, types.int64, types.int64, cosine, sine), emit


@intrinsic
def _scaled(typing: Any, y: Any, stride: Any, n: Any, scale: Any, bias: Any) -> Any:
    """y (4, n), of rows `stride` apart, becomes scale y + bias; scale, bias (n,)."""
    return types.void(y, types.int64, types.int64, scale, bias), _scale(residual=False)


@intrinsic
def _added(typing: Any, y: Any, stride: Any, n: Any, scale: Any, bias: Any, x: Any) -> Any:
    """x (4, n) becomes x + scale y + bias, of y (4, n) likewise `stride` apart."""
    return types.void(y, types.int64, types.int64, scale, bias, x), _scale(residual=True)


def _scale(residual: bool) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, (y, stride, n, scale, bias, *x) = Vectors(context, builder), args
        sources, targets = make.rows(y, stride), make.rows(x[0] if residual else y, stride)

        def body(k: Any) -> list[Any]:
            factor, constant = (make.load(builder.gep(one, [k])) for one in (scale, bias))
            for source, target in zip(sources, targets, strict=True):
                value = make.fma(make.load(builder.gep(source, [k])), factor, constant)
                if residual:
                    value = builder.fadd(value, make.load(builder.gep(target, [k])))
                make.store(value, builder.gep(target, [k]))
            return []

        make.loop(n, LANES, [], body)
        return context.get_dummy_value()

    return emit


@intrinsic
def _scatter(typing: Any, source: Any, n: Any, target: Any, stride: Any) -> Any:
    """n numbers, from a pointer on, to places `stride` numbers apart."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, (source, n, target, stride) = Vectors(context, builder), args

        def body(k: Any) -> list[Any]:
            number = builder.load(builder.gep(source, [k]))
            builder.store(number, builder.gep(target, [builder.mul(k, stride)]))
            return []

        make.loop(n, 1, [], body)
        return context.get_dummy_value()

    return types.void(source, types.int64, target, types.int64), emit


@intrinsic
def _shortened(typing: Any, x: Any, n: Any, top: Any, out: Any) -> Any:
    """out (4, n + 2) int16: x (4, n) in steps of its largest magnitude / top, and behind it this step, as float32.

    top: at most 32767. A row with a number that is not finite has a step of NaN.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        make, (x, n, top, out) = Vectors(context, builder), args
        sources, targets = make.rows(x, n), make.rows(out, make.add(n, 2))
        zero, most = full(0.0), builder.sitofp(top, FLOAT)

        def find(k: Any, *found: Any) -> list[Any]:
            values = [make.load(builder.gep(source, [k])) for source in sources]
            sizes = [make.greater(v, builder.fsub(zero, v)) for v in values]
            largest = [make.greater(size, before) for size, before in zip(sizes, found[:FOUR], strict=True)]
            return largest + [make.fma(v, zero, before) for v, before in zip(values, found[FOUR:], strict=True)]

        def write(k: Any) -> list[Any]:
            for source, scale, target in zip(sources, scales, targets, strict=True):
                turned = make.fma(make.load(builder.gep(source, [k])), scale, full(ROUND))  # see `_softmax`
                value = builder.trunc(builder.bitcast(turned, WORDS), ir.VectorType(SHORT, LANES))
                place = builder.bitcast(builder.gep(target, [k]), value.type.as_pointer())
                builder.store(value, place).align = 2
            return []

        found = make.loop(n, LANES, [full(TINY)] * FOUR + [zero] * FOUR, find)
        largest = [make.joined(one, make.greater) for one in found[:FOUR]]
        scales = [builder.fdiv(make.spread(most), make.spread(one)) for one in largest]
        make.loop(n, LANES, [], write)
        for one, poison, target in zip(largest, found[FOUR:], targets, strict=True):
            place = builder.bitcast(builder.gep(target, [n]), FLOAT.as_pointer())
            builder.store(builder.fadd(builder.fdiv(one, most), make.joined(poison, builder.fadd)), place)
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, out), emit


normed: Callable[..., Any] = _normed
gelu: Callable[..., Any] = _gelu
softmax: Callable[..., Any] = _softmax
rotate: Callable[..., Any] = _rotate
scaled: Callable[..., Any] = _scaled
added: Callable[..., Any] = _added
scatter: Callable[..., Any] = _scatter
shortened: Callable[..., Any] = _shortened
