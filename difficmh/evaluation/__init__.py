"""Codecs compared on pictures: what they store, how close they come, and what a model still sees in what they decode.

contestants   a codec at its qualities, from its description
graders       what is measured of one decoded picture: fidelity, patches, tasks, perceptual
measure       the pass: each picture through each codec at each quality, decoded once, graded by all
statistics    from the evidence of the pictures to one figure, under any weights of the pictures
summary       figures and confidence intervals (intervals), at equal rates, BD-rates
report, markdown, plots, page   what comes out of it
rows, earlier measurements as a table, and an evaluation read again from it
"""
