"""What watches over a pretraining run: its journal, TensorBoard, alarms, validation, figures, and advice afterwards.

`docs/monitoring-pretraining.md` says what each figure means and what a healthy one looks like.
"""
