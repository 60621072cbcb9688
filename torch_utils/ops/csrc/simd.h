// Vectors of floats as wide as the processor's registers, and what the decoder needs of them.
//
// Written with the vector extensions that GCC and Clang share, so the same source serves SSE2,
// AVX2, AVX-512 and NEON: the compiler's -m flags alone decide.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));

constexpr int64_t pad(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

inline Vec splat(float value) { return value - Vec{}; }

inline Vec load(const float* from) {
    Vec v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }
inline void store(int32_t* to, IntVec v) { std::memcpy(to, &v, sizeof v); }

// The first `count` lanes only, when fewer than a whole vector remain. Lane by lane, a vector would
// have to wait for its parts to reach memory.
inline Vec load(const float* from, int64_t count) {
    if (count >= kLanes) return load(from);
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_loadu_ps((1 << count) - 1, from);
#else
    Vec v{};
    for (int64_t i = 0; i < count; i++) v[i] = from[i];
    return v;
#endif
}

inline void store(float* to, Vec v, int64_t count) {
    if (count >= kLanes) return store(to, v);
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (1 << count) - 1, (__m512)v);
#else
    for (int64_t i = 0; i < count; i++) to[i] = v[i];
#endif
}

// Numbers of 16 bits: the upper half of a float.
struct Bfloat16 {
    uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(Bfloat16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

typedef uint16_t ShortVec __attribute__((vector_size(2 * kLanes)));
typedef uint32_t BitsVec __attribute__((vector_size(4 * kLanes)));

inline Vec load(const Bfloat16* from, int64_t count) {
    ShortVec bits{};
    if (count >= kLanes) std::memcpy(&bits, from, sizeof bits);
    else std::memcpy(&bits, from, count * sizeof *from);
    return (Vec)(__builtin_convertvector(bits, BitsVec) << 16);
}

// To the nearest, ties to even; a NaN stays one.
inline void store(Bfloat16* to, Vec v, int64_t count) {
    const BitsVec bits = (BitsVec)v;
    BitsVec rounded = bits + 0x7fff + ((bits >> 16) & 1);
    rounded = v == v ? rounded : bits | 0x400000;
    const ShortVec upper = __builtin_convertvector(rounded >> 16, ShortVec);
    if (count >= kLanes) std::memcpy(to, &upper, sizeof upper);
    else std::memcpy(to, &upper, count * sizeof *to);
}

// Halves are added until one lane is left.
template <int N>
inline float sum(const float* lanes) {
    if constexpr (N == 1) return lanes[0];
    else {
        typedef float Half __attribute__((vector_size(2 * N)));
        Half low, high;
        std::memcpy(&low, lanes, sizeof low);
        std::memcpy(&high, lanes + N / 2, sizeof high);
        low += high;
        float added[N / 2];
        std::memcpy(added, &low, sizeof low);
        return sum<N / 2>(added);
    }
}

inline float sum(Vec v) {
    float lanes[kLanes];
    std::memcpy(lanes, &v, sizeof v);
    return sum<kLanes>(lanes);
}

// exp(-|x|). With n = round(y / ln 2), exp(y) = 2^n exp(y - n ln 2); the rest is a Taylor series on
// |r| <= ln(2) / 2, whose first omitted term is 5e-9. Adding 1.5 * 2^23 rounds to an integer and
// leaves it in the low bits of the sum, from where a shift carries it into the exponent.
inline Vec exp_minus_abs(Vec x) {
    const float kRound = 12582912.f;
    Vec y = x < 0 ? x : -x;
    y = y < -87.f ? splat(-87.f) : y;
    Vec shifted = y * 1.44269504f + kRound;
    Vec n = shifted - kRound;
    Vec r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = r * (1.f / 5040) + 1.f / 720;
    p = p * r + 1.f / 120;
    p = p * r + 1.f / 24;
    p = p * r + 1.f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.f;
    p = p * r + 1.f;
    return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

// log(1 + e) = 2 atanh(s), s = e / (2 + e) <= 1/3 for e in [0, 1]: an odd series in s whose first
// omitted term is 1.4e-8 of the sum, so the result is exact to rounding for tiny e as well.
inline Vec log1p_from_ratio(Vec s) {
    Vec s2 = s * s;
    Vec p = s2 * (1.f / 13) + 1.f / 11;
    p = p * s2 + 1.f / 9;
    p = p * s2 + 1.f / 7;
    p = p * s2 + 1.f / 5;
    p = p * s2 + 1.f / 3;
    return 2.f * (s + s * (p * s2));
}

// A NaN survives both: with e = NaN every branch below keeps it.
inline Vec softplus(Vec x) {
    Vec e = exp_minus_abs(x);
    Vec positive = x < 0 ? Vec{} : x;
    return positive + log1p_from_ratio(e / (2.f + e));
}

inline Vec sigmoid(Vec x) {
    Vec e = exp_minus_abs(x);
    return (x < 0 ? e : splat(1.f)) / (1.f + e);
}

// softplus and its derivative, sigmoid, with one exponential and one division.
inline Vec softplus_and_slope(Vec x, Vec& slope) {
    Vec e = exp_minus_abs(x);
    Vec inverse = 1.f / ((1.f + e) * (2.f + e));
    slope = (x < 0 ? e : splat(1.f)) * (2.f + e) * inverse;
    Vec positive = x < 0 ? Vec{} : x;
    return positive + log1p_from_ratio(e * (1.f + e) * inverse);
}
