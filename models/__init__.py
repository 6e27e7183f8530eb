"""What a model is: tensors, configuration, repository, versions, routing and the runtimes that execute it.

Ask it to describe, find, load and run models. It never knows Ray, HTTP, gRPC services, SQL or tenants.
"""
