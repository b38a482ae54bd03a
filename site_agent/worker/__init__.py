"""The worker process: the training that the agent asks for, outside the agent's process.

`worker` is the agent's end, `worker_process` the program. Nothing here imports grpc, nor a module that does.
"""
