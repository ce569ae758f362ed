"""What the numbers of MobileNetV2's runs mean, a line each, for the table in `report.md`."""

NUMBERS = {
    "accuracy": "share of the validation pictures that are told right (0 to 1)",
    "accuracy_low": "lower end of its 95 % interval",
    "accuracy_high": "upper end of its 95 % interval",
    "validation_pictures": "pictures kept out of training that accuracy is measured on",
    "parameters": "weights and biases of the net, those of batch norms too",
    "million_macs": "multiply–accumulates for one picture (millions)",
    "accuracy_predict": "share of the --predict pictures of these classes that are told right (0 to 1)",
    "accuracy_predict_low": "lower end of its 95 % interval",
    "accuracy_predict_high": "upper end of its 95 % interval",
    "MiB_widest_tensor": "largest output of a convolution where all exist whole, one picture in float32 (MiB)",
    "MiB_through_depthwise": "what the depthwise convolutions read and write for one picture, weights apart (MiB)",
    "MiB_alive_at_most": "most that lives in memory at once for one picture, weights and picture apart (MiB)",
    "milliseconds_a_picture": "median time for one picture on one thread of this CPU, batch norms folded (ms)",
    "milliseconds_90th_percentile": "time that nine of ten such evaluations stay below (ms)",
    "pt2_milliseconds": "median time of model.pt2 for one picture on one thread of this CPU (ms)",
    "pt2_milliseconds_90th_percentile": "time that nine of ten evaluations of model.pt2 stay below (ms)",
    "onnx_milliseconds": "median time of model.onnx for one picture on one thread of this CPU, by ONNX Runtime (ms)",
    "onnx_milliseconds_90th_percentile": "time that nine of ten evaluations of model.onnx stay below (ms)",
}
