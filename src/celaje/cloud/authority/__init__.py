"""What a call asks of policies, and who may have it.

    identities   who calls: the names that policies may call them by, and the documents that they hold
    facts        what conditions may look at
    questions    the questions of a call, by service: ec2.py, iam.py, others.py
    refusals     AWS's sentences, and the encoded reason of EC2's
    authority    the answer: what the dispatcher and S3 ask
"""
