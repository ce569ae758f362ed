"""What the numbers of neural processes' runs mean, a line each, for the table in `report.md`."""

PIXELS = (4, 10, 30, 100, 300, 1000)
PEERS = {"gp_shared": "a Gaussian process whose kernel is learned from all training functions",
         "gp_own": "a Gaussian process whose kernel is fitted to the function's own points shown"}  # fmt: skip

SCORES = {
    "nll": "mean −log density of held-out values given the points shown (nats a point, y in its own units; low: "
           "foreseen)",
    "rmse": "root of the mean squared error of the same, mean of the functions (in units of y)",
    "coverage_50": "share of held-out values that lie in their 50 % band (0 to 1; 0.5 is what it promises)",
    "coverage_90": "share of held-out values that lie in their 90 % band (0 to 1; 0.9 is what it promises)",
}  # fmt: skip
NUMBERS = {
    **SCORES,
    "calibration_error": "mean difference between the share in a band and what it promises, bands of 5 to 95 % (0 to 1;"
                         " 0: as promised)",
    "points_shown": "points of a held-out function that these scores are given",
    **{f"{score}_{peer}": f"as {score.replace('_', ' ')}, of {words}"
       for peer, words in PEERS.items() for score in SCORES},
    "train_functions": "functions learned from",
    "held_out_functions": "functions kept out of training that scores are of",
    "predictions": "rows of predictions.csv",
    "sigma_scale": "factor by which --recalibrate multiplies σ",
    "parameters": "weights and biases of the network",
    # complete
    **{f"mse_{n}": f"mean squared error of held-out pictures completed from {n} random pixels (values 0 to 1; low: "
                   "alike)" for n in PIXELS},
    **{f"mse_{n}_knn": "the same where each pixel is the mean of the three nearest that are shown" for n in PIXELS},
    "mse_mean_picture": "the same where every picture is the mean of the training pictures, whatever is shown",
    "mse_shown": "mean squared error of the completions in completions.png, all pixels (values 0 to 1)",
    "pixels_shown": "pixels that these are completed from",
    "train_images": "pictures learned from",
    "held_out_images": "pictures kept out of training that scores are of",
    # few_shot
    "accuracy": "share of pictures of held-out classes told right from the examples, mean of 400 episodes (0 to 1)",
    "accuracy_low": "lower end of its 95 % interval, over episodes",
    "accuracy_high": "upper end of its 95 % interval, over episodes",
    "accuracy_embedding": "as accuracy, by the nearest class mean in the network's codes",
    "accuracy_pixels": "as accuracy, by the nearest class mean in pixels, nothing being learned",
    "chance": "share that guessing gets right (0 to 1)",
    "train_classes": "classes learned from",
    "test_classes": "classes kept out of training that episodes are drawn from",
}  # fmt: skip
